#!/usr/bin/env bash
# Build the image of the Dockerfile and train in it, on a machine without a container engine.
#
# Uses buildah with chroot isolation, as root, on a base image that debootstrap makes (or on BASE_IMAGE). The training
# runs as the image's own user and writes to a mounted folder, which is then read back from outside. Everything is
# made under one temporary folder (about 20 GB at the peak) and removed at the end.
#
#   BASE_IMAGE      an image to build on instead of a fresh debootstrap of the host's own release
#   SUITE, MIRROR   the release and the mirror for debootstrap (default: the host's release, debootstrap's mirror)
#   SCRATCH         where the temporary folder is made (default /var/tmp)
#   KEEP=1          leave the temporary folder, and say where it is
#
# What the host's pip is told about where packages come from (PIP_* variables, pip.conf, a certificate bundle) holds
# for the build as well; none of it ends up in the image.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

fail() {
    echo "container_check: $*" >&2
    exit 1
}
step() { printf '\n== %s  [%s, %s in use]\n' "$*" "$(date +%T)" "$(du -sh "$work" | cut -f1)"; }

[[ $EUID -eq 0 ]] || fail "must be root: buildah's chroot isolation mounts and changes users"
for tool in buildah debootstrap python3; do
    command -v "$tool" >/dev/null || fail "$tool is missing (apt install buildah debootstrap python3-pip)"
done

work=$(mktemp --directory --tmpdir="${SCRATCH:-/var/tmp}" asr-dni-container.XXXXXX)
chmod 755 "$work"
image=localhost/asr-dni
b() { buildah --root "$work/storage" --runroot "$work/run" --storage-driver vfs "$@"; }

clean_up() {
    if [[ -n ${KEEP:-} ]]; then
        echo "left in $work (remove with: buildah --root $work/storage --runroot $work/run --storage-driver vfs rm --all; rm -r $work)"
        return
    fi
    b rm --all >/dev/null 2>&1 || true
    # Never across a mount that was left behind: that would remove what is mounted.
    rm --recursive --force --one-file-system "$work"
}
trap clean_up EXIT
trap 'echo "container_check: line $LINENO failed: $BASH_COMMAND" >&2' ERR

# Write the host's package sources for pip to $1; those that are folders of the host mean nothing in the image.
pip_configuration() {
    local key value
    echo "[global]"
    for key in index-url extra-index-url trusted-host proxy default-timeout; do
        value=$(python3 -m pip config get ":env:.$key" 2>/dev/null) ||
            value=$(python3 -m pip config get "global.$key" 2>/dev/null) || continue
        value=$(tr -s '[:space:]' '\n' <<<"$value" | sed '/^file:/d' | paste --serial --delimiters=' ')
        [[ -z $value ]] || echo "$key = $value"
    done
    if [[ -n $certificates ]]; then
        echo "cert = /run/host-certificates.pem"
    fi
}
certificates=$(python3 -m pip config get :env:.cert 2>/dev/null || python3 -m pip config get global.cert 2>/dev/null ||
    echo "${SSL_CERT_FILE:-}")
pip_configuration >"$work/pip.conf"
mounts=(--volume "$work/pip.conf:/etc/pip.conf:ro")
if [[ -n $certificates ]]; then
    mounts+=(--volume "$certificates:/run/host-certificates.pem:ro")
fi

if [[ -z ${BASE_IMAGE:-} ]]; then
    suite=${SUITE:-$(. /etc/os-release && echo "$VERSION_CODENAME")}
    step "base image: debootstrap $suite with python3"
    BASE_IMAGE=localhost/debootstrap-$suite
    base=$(b from scratch)
    # shellcheck disable=SC2086  # MIRROR is left out where it is empty
    debootstrap --variant=minbase --include=ca-certificates,python3,python3-venv,python3-pip \
        "$suite" "$(b mount "$base")" ${MIRROR:-} >"$work/debootstrap.log" 2>&1 ||
        { tail -n 20 "$work/debootstrap.log" >&2; fail "debootstrap failed"; }
    b umount "$base" >/dev/null
    b commit --quiet --rm "$base" "$BASE_IMAGE" >/dev/null
fi

step "build on $BASE_IMAGE"
b build --isolation chroot --build-arg "BASE_IMAGE=$BASE_IMAGE" "${mounts[@]}" --tag "$image" .

step "image"
b images
b inspect --type image --format \
    'entrypoint {{.OCIv1.Config.Entrypoint}}, command {{.OCIv1.Config.Cmd}}, user {{.OCIv1.Config.User}}, volumes {{.OCIv1.Config.Volumes}}, in {{.OCIv1.Config.WorkingDir}}' \
    "$image"
label() { b inspect --type image --format "{{$1}}" "$image"; }
[[ $(label .OCIv1.Config.Entrypoint) == "[asr-dni]" ]] || fail "the entry point is not asr-dni"
user=$(label .OCIv1.Config.User)
[[ $user =~ ^[1-9][0-9]*$ ]] || fail "the image's user is '$user', not a number other than root's"

# buildah would lay the volumes that the image declares over what is mounted there, which an engine does not do: they
# are taken out of the container's settings (not of the image's).
new_container() {
    container=$(b from "$image")
    b config --volume /data- --volume /runs- "$container"
}
[[ $(label .OCIv1.Config.Volumes) == "map[/data:{} /runs:{}]" ]] || fail "the image's volumes are not /data and /runs"
new_container
mkdir "$work/runs" "$work/data"
chown "$user" "$work/runs" "$work/data"
# What `docker run --volume .../data:/data --volume .../runs:/runs asr-dni ...` does.
in_container() {
    b run --isolation chroot --volume "$work/data:/data" --volume "$work/runs:/runs" "$container" -- "$@" </dev/null
}

step "as the image's user"
in_container sh -c 'id && pwd && ls -l && touch "$HOME/writable" data/mounted runs/mounted'
[[ -f $work/data/mounted && -f $work/runs/mounted ]] || fail "what the container writes does not reach the mounted folders"
[[ $(in_container id -u) == "$user" ]] || fail "the container does not run as user $user"
in_container asr-dni --help
in_container asr-dni info
in_container asr-dni info | grep 'compiled by' >/dev/null || fail "the recurrent kernels were not compiled in the container"

step "a short training"
in_container asr-dni fit --config conf/experiment/synthetic_lstm_dni.yaml --data.source.init_args.speakers 80 \
    --name container --trainer.max_epochs 5

step "the mounted folder, read from outside"
find "$work/data" "$work/runs" -type f ! -name '*.wav' -printf 'user %U %9s bytes  %H/%P\n' | sed "s|$work||"
read_back() { # a file of that name, which the image's user must have written
    local path
    path=$(find "$work/runs" -name "$1" -uid "$user" -size +0 -print -quit)
    [[ -n $path ]] || fail "the training left no $1 of user $user in the mounted folder"
    echo "$path"
}
[[ -z $(find "$work/data" "$work/runs" ! -uid "$user" -print -quit) ]] || fail "there are files of another user than the image's"
checkpoint=$(read_back '*.ckpt')
curve=$(read_back noise_curve.csv)
picture=$(read_back noise_curve.png)
read_back '*.wandb' >/dev/null
cat "$curve"
[[ $(head -c 8 "$picture" | od -An -t x1 | tr -d ' ') == 89504e470d0a1a0a ]] || fail "$picture is not a PNG picture"

step "the checkpoint, evaluated in another container"
b rm "$container" >/dev/null
new_container
in_container asr-dni noise-curve "/runs/${checkpoint#"$work/runs/"}" --sigmas '[0, 1, 2]' --draws 2
read_back 'noise_curve-*' >/dev/null

step "done"
