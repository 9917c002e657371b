"""Triton kernels of the recurrences: see :mod:`asr_dni.nn.triton_recurrence`, which launches them.

A tile holds units along its first axis and samples along its second, so that the weights are the left factor of
the products, whose tiles must be large, and the samples of a program can be few. Offsets within one step of one
program's samples are 32-bit, everything above that 64-bit.

Four numbers belong to a unit of a sample. What they are:

====  =====================  ===========  =====================  =====================
cell  before activation      activations  gradients              weights' rows
====  =====================  ===========  =====================  =====================
LSTM  i, f, g, o             i, f, g, o   i, f, g, o             i, f, g, o
GRU   r, z, W_in x, W_hn h   r, z, n,     r, z, W_in x, W_hn h   r, z, W_hn h
                             W_hn h
RNN   one                    (is h)       one                    one
====  =====================  ===========  =====================  =====================

The derivative of additive noise is 1 and all activations are stored (they would otherwise have to be computed
again from the projection, which is as large), so the backward kernels never need to draw the noise again.
"""
# Kernels are a language of their own, compiled by Triton; its functions carry no types.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, import-untyped, operator, no-any-return"
# ruff: noqa: D103, SIM108

import triton
import triton.language as tl


@triton.jit
def philox(c0, c1, c2, c3, k0, k1):
    """Return the four words of Philox4x32-10; words and keys are uint32 and broadcast against each other."""
    for _ in tl.static_range(10):
        product0 = tl.mul(
            c0.to(tl.uint64), 0xD2511F53, sanitize_overflow=False
        )  # one instruction for both halves
        product1 = tl.mul(c2.to(tl.uint64), 0xCD9E8D57, sanitize_overflow=False)
        c0 = (product1 >> 32).to(tl.uint32) ^ c1 ^ k0
        c1 = product1.to(tl.uint32)
        c2 = (product0 >> 32).to(tl.uint32) ^ c3 ^ k1
        c3 = product0.to(tl.uint32)
        k0 = tl.add(k0, 0x9E3779B9, sanitize_overflow=False)
        k1 = tl.add(k1, 0xBB67AE85, sanitize_overflow=False)
    return c0, c1, c2, c3


@triton.jit
def gaussian_pair(first, second, std):
    """Return two numbers from N(0, std**2) made of two words by the Box-Muller transform."""
    radius = std * tl.sqrt(-2.0 * tl.log((first.to(tl.float32) + 1.0) * 2.3283064365386963e-10))
    # Cosine and sine of second * 2 pi / 2**32: the quadrant is exact in integers; within it the single-precision
    # polynomials of the Cephes library (S. Moshier), which have no slow path for large arguments.
    quadrant = tl.add(second, 0x20000000, sanitize_overflow=False) >> 30
    x = tl.sub(second, quadrant << 30, sanitize_overflow=False).to(tl.int32, bitcast=True).to(tl.float32)
    x = x * 1.4629180792671596e-09
    square = x * x
    s = x + x * square * (-1.6666654611e-1 + square * (8.3321608736e-3 - square * 1.9515295891e-4))
    c = 4.166664568e-2 + square * (-1.388731625e-3 + square * 2.443315712e-5)
    c = 1.0 - 0.5 * square + square * square * c
    across = tl.where((quadrant & 1) == 1, s, c)
    up = tl.where((quadrant & 1) == 1, c, s)
    cosine = tl.where(((quadrant + 1) & 2) == 2, -across, across)
    sine = tl.where((quadrant & 2) == 2, -up, up)
    return radius * cosine, radius * sine


@triton.jit
def load_noise(table, site: tl.constexpr):
    """Return standard deviation and key of a site (0 input, 1 recurrent, 2 elementwise).

    ``table`` is the network's row of 32-bit words: the first step, then these three of each site.
    """
    std = tl.load(table + 1 + 3 * site).to(tl.float32, bitcast=True)
    k0 = tl.load(table + 2 + 3 * site).to(tl.uint32, bitcast=True)
    k1 = tl.load(table + 3 + 3 * site).to(tl.uint32, bitcast=True)
    return std, k0, k1


@triton.jit
def gaussians(noise, unit, step, low, high):
    """Return the four numbers that a site draws for each unit and sample."""
    w0, w1, w2, w3 = philox(unit, step, low, high, noise[1], noise[2])
    a, b = gaussian_pair(w0, w1, noise[0])
    c, d = gaussian_pair(w2, w3, noise[0])
    return a, b, c, d


@triton.jit
def gaussian(noise, unit, step, low, high, WIDTH: tl.constexpr):
    """Return the one number that a site of one gate draws for each unit and sample: four units share a counter."""
    quarter: tl.constexpr = (WIDTH + 3) // 4
    a, b, c, d = gaussians(noise, unit % quarter, step, low, high)
    lane = unit // quarter
    return tl.where(lane < 2, tl.where(lane == 0, a, b), tl.where(lane == 2, c, d))


@triton.jit
def sigmoid(x):
    return 1.0 / (1.0 + tl.exp(-x))


@triton.jit
def tanh(x):
    """The hyperbolic tangent to single precision; near zero 1 - 2 / (1 + exp(2 x)) would lose its digits."""
    square = x * x
    p = -5.70498872745e-3 * square + 2.06390887954e-2
    p = p * square - 5.37397155531e-2
    p = p * square + 1.33314422036e-1
    p = p * square - 3.33332819422e-1
    return tl.where(tl.abs(x) < 0.625, x + x * square * p, 1.0 - 2.0 / (1.0 + tl.exp(2.0 * x)))


@triton.jit
def matmul(a, b, acc, PRECISION: tl.constexpr, INTERPRETED: tl.constexpr):
    """Return ``a @ b + acc`` in float32."""
    if INTERPRETED:  # its dot takes the bits of a bfloat16 for an integer; the products are exact in float32
        a = a.to(tl.float32)
        b = b.to(tl.float32)
    return tl.dot(a, b, acc, input_precision=PRECISION)


@triton.jit
def load_gates(pointer, at, inside, CELL: tl.constexpr, WIDTH: tl.constexpr):
    """Return the cell's projections (for the GRU zeros for the fourth number)."""
    x0 = tl.load(pointer + at, inside, 0.0).to(tl.float32)
    x1 = x0
    x2 = x0
    x3 = x0
    if CELL == "lstm" or CELL == "gru":
        x1 = tl.load(pointer + WIDTH + at, inside, 0.0).to(tl.float32)
        x2 = tl.load(pointer + 2 * WIDTH + at, inside, 0.0).to(tl.float32)
        x3 = tl.zeros_like(x0)
        if CELL == "lstm":
            x3 = tl.load(pointer + 3 * WIDTH + at, inside, 0.0).to(tl.float32)
    return x0, x1, x2, x3


@triton.jit
def load_bias(pointer, unit, inside, CELL: tl.constexpr, WIDTH: tl.constexpr, BIAS: tl.constexpr):
    """Return the bias of each of the four numbers."""
    b0 = tl.zeros_like(unit).to(tl.float32)
    b1 = b0
    b2 = b0
    b3 = b0
    if BIAS:
        b0 = tl.load(pointer + unit, inside, 0.0).to(tl.float32)
        if CELL == "lstm":
            b1 = tl.load(pointer + WIDTH + unit, inside, 0.0).to(tl.float32)
            b2 = tl.load(pointer + 2 * WIDTH + unit, inside, 0.0).to(tl.float32)
            b3 = tl.load(pointer + 3 * WIDTH + unit, inside, 0.0).to(tl.float32)
        if CELL == "gru":
            b1 = tl.load(pointer + WIDTH + unit, inside, 0.0).to(tl.float32)
            b3 = tl.load(pointer + 2 * WIDTH + unit, inside, 0.0).to(tl.float32)
    return b0, b1, b2, b3


@triton.jit
def add_noise(
    x0,
    x1,
    x2,
    x3,
    of_input,
    of_recurrent,
    unit,
    step,
    low,
    high,
    CELL: tl.constexpr,
    INPUT: tl.constexpr,
    RECURRENT: tl.constexpr,
    JOINT: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """Add the noise of the products with W_ih and W_hh; of joint arrays that of the input covers both."""
    if CELL == "lstm" or CELL == "gru":
        if INPUT:
            n0, n1, n2, n3 = gaussians(of_input, unit, step, low, high)
            x0 += n0
            x1 += n1
            x2 += n2
            if CELL == "lstm" or JOINT:
                x3 += n3
        if RECURRENT:
            n0, n1, n2, n3 = gaussians(of_recurrent, unit, step, low, high)
            x0 += n0
            x1 += n1
            if CELL == "lstm":
                x2 += n2
                x3 += n3
            else:
                x3 += n2
    else:
        if INPUT:
            x0 += gaussian(of_input, unit, step, low, high, WIDTH)
        if RECURRENT:
            x0 += gaussian(of_recurrent, unit, step, low, high, WIDTH)
    return x0, x1, x2, x3


@triton.jit
def cell_forward(
    x0, x1, x2, x3, h, c, of_products, unit, step, low, high, CELL: tl.constexpr, ELEMENTWISE: tl.constexpr
):
    """Return the four activations and the new h and c; h and c as they were before, in float32."""
    n0 = 0.0
    n1 = 0.0
    n2 = 0.0
    if ELEMENTWISE:
        n0, n1, n2, _ = gaussians(of_products, unit, step, low, high)
    if CELL == "lstm":
        x0 = sigmoid(x0)
        x1 = sigmoid(x1)
        x2 = tanh(x2)
        x3 = sigmoid(x3)
        c = x1 * c + x0 * x2
        if ELEMENTWISE:
            c += n0 + n1
        h = x3 * tanh(c)
        if ELEMENTWISE:
            h += n2
    elif CELL == "gru":
        x0 = sigmoid(x0)
        x1 = sigmoid(x1)
        product = x0 * x3
        if ELEMENTWISE:
            product += n0
        x2 = tanh(x2 + product)
        h = (1.0 - x1) * x2 + x1 * h
        if ELEMENTWISE:
            h += n1 + n2
    elif CELL == "rnn_relu":
        h = tl.where(x0 < 0.0, 0.0, x0)  # keeps what is not a number
    else:
        h = tanh(x0)
    return x0, x1, x2, x3, h, c


@triton.jit
def cell_backward(a0, a1, a2, a3, h, c_before, c, dh, dc, CELL: tl.constexpr):
    """Return the gradients of the four numbers, of c before, and of h before as far as it is not through W_hh.

    ``h`` is that before the step for the GRU, that after the step for the RNN.
    """
    if CELL == "lstm":
        t = tanh(c)
        dc += dh * a3 * (1.0 - t * t)
        d0 = dc * a2 * a0 * (1.0 - a0)
        d1 = dc * c_before * a1 * (1.0 - a1)
        d2 = dc * a0 * (1.0 - a2 * a2)
        d3 = dh * t * a3 * (1.0 - a3)
        dc = dc * a1
        dh = tl.zeros_like(dh)
    elif CELL == "gru":
        d2 = dh * (1.0 - a1) * (1.0 - a2 * a2)
        d0 = d2 * a3 * a0 * (1.0 - a0)
        d1 = dh * (h - a2) * a1 * (1.0 - a1)
        d3 = d2 * a0
        dh = dh * a1
    else:
        if CELL == "rnn_relu":
            d0 = tl.where(h <= 0.0, 0.0, dh)  # keeps what is not a number
        else:
            d0 = dh * (1.0 - h * h)
        d1 = d0
        d2 = d0
        d3 = d0
        dh = tl.zeros_like(dh)
    return d0, d1, d2, d3, dh, dc


@triton.jit
def store_four(pointer, at, inside, x0, x1, x2, x3, WIDTH: tl.constexpr):
    kind = pointer.dtype.element_ty
    tl.store(pointer + at, x0.to(kind), inside)
    tl.store(pointer + WIDTH + at, x1.to(kind), inside)
    tl.store(pointer + 2 * WIDTH + at, x2.to(kind), inside)
    tl.store(pointer + 3 * WIDTH + at, x3.to(kind), inside)


@triton.jit
def store_gradients(
    pointer, hidden_n, at_gates, at, inside, d0, d1, d2, d3, CELL: tl.constexpr, WIDTH: tl.constexpr
):
    """Store the gradient of the projection and, for the GRU, that of W_hn h."""
    kind = pointer.dtype.element_ty
    tl.store(pointer + at_gates, d0.to(kind), inside)
    if CELL == "lstm" or CELL == "gru":
        tl.store(pointer + WIDTH + at_gates, d1.to(kind), inside)
        tl.store(pointer + 2 * WIDTH + at_gates, d2.to(kind), inside)
    if CELL == "lstm":
        tl.store(pointer + 3 * WIDTH + at_gates, d3.to(kind), inside)
    if CELL == "gru":
        tl.store(hidden_n + at, d3.to(kind), inside)


@triton.jit(do_not_specialize=["steps", "rows"])
def forward(
    projection,
    p_network,
    p_step,
    p_row,
    w_hh,
    b_hh,
    h0,
    c0,
    table,
    ids,
    ids_network,
    states,
    cells,
    activations,
    last_c,
    steps,
    rows,
    CELL: tl.constexpr,
    INPUT: tl.constexpr,
    RECURRENT: tl.constexpr,
    JOINT: tl.constexpr,
    ELEMENTWISE: tl.constexpr,
    SAVE: tl.constexpr,
    BIAS: tl.constexpr,
    GATES: tl.constexpr,
    WIDTH: tl.constexpr,
    PITCH: tl.constexpr,
    UNITS: tl.constexpr,
    ROWS: tl.constexpr,
    SLICE: tl.constexpr,
    PRECISION: tl.constexpr,
    INTERPRETED: tl.constexpr,
    LOOPS: tl.constexpr,
):
    """Run ROWS samples of one network through all steps.

    ``w_hh`` is ``(K, gates * H, PITCH)``, with zeros in the columns from H on: rows then begin where wide loads can.
    With SLICE 0 the recurrent weights are loaded once and stay on the chip, and so does h. Otherwise each step
    streams the weights, SLICE columns at a time, and reads the same part of h back from ``states``.
    """
    k = tl.program_id(1).to(tl.int64)
    first = tl.program_id(0).to(tl.int64) * ROWS
    unit = tl.arange(0, UNITS)[:, None]
    row = tl.arange(0, ROWS)[None, :]
    unit_inside = unit < WIDTH
    row_inside = row < rows - first
    inside = unit_inside & row_inside
    at = row * WIDTH + unit
    at_projection = row * p_row + unit
    at_activations = row * (4 * WIDTH) + unit
    size = rows.to(tl.int64) * WIDTH  # of one step's states
    projection += k * p_network + first * p_row
    states += (k * (steps + 1) * rows + first) * WIDTH
    start = (k * rows + first) * WIDTH
    h = tl.load(h0 + start + at, inside, 0.0)
    kind = h.dtype
    tl.store(states + at, h, inside)
    h = h.to(tl.float32)
    c = h
    if CELL == "lstm":
        c = tl.load(c0 + start + at, inside, 0.0).to(tl.float32)
        if SAVE:
            cells += (k * (steps + 1) * rows + first) * WIDTH
            tl.store(cells + at, c, inside)
    if SAVE and GATES > 1:
        activations += (k * steps * rows + first) * (4 * WIDTH)

    table += k * 10
    of_input = load_noise(table, 0)
    of_recurrent = load_noise(table, 1)
    of_products = load_noise(table, 2)
    step = tl.load(table).to(tl.uint32, bitcast=True)
    sample = tl.load(ids + k * ids_network + first + row, row_inside, 0)
    low = sample.to(tl.uint32)
    high = (sample >> 32).to(tl.uint32)
    word = unit.to(tl.uint32)

    b0, b1, b2, b3 = load_bias(b_hh + k * (GATES * WIDTH), unit, unit_inside, CELL, WIDTH, BIAS)
    w_hh += k * (GATES * WIDTH * PITCH)
    w1 = w_hh + WIDTH * PITCH
    w2 = w_hh + 2 * WIDTH * PITCH
    w3 = w_hh + 3 * WIDTH * PITCH
    column = tl.arange(0, UNITS if SLICE == 0 else SLICE)
    at_weights = unit * PITCH + column[None, :]
    if SLICE == 0:
        weights_inside = unit_inside & (column[None, :] < PITCH)
        m0 = tl.load(w_hh + at_weights, weights_inside, 0.0)
        if GATES > 1:
            m1 = tl.load(w1 + at_weights, weights_inside, 0.0)
            m2 = tl.load(w2 + at_weights, weights_inside, 0.0)
        if GATES > 3:
            m3 = tl.load(w3 + at_weights, weights_inside, 0.0)
    else:
        at_slice = row * WIDTH + column[:, None]
        tl.debug_barrier()  # what one thread stored to states others read

    for _ in range(LOOPS if INTERPRETED else steps):  # the interpreter wants a plain number
        x0, x1, x2, x3 = load_gates(projection, at_projection, inside, CELL, WIDTH)
        x0 += b0
        if GATES > 1:
            x1 += b1
            x3 += b3
        if GATES > 3:
            x2 += b2
        x0, x1, x2, x3 = add_noise(
            x0,
            x1,
            x2,
            x3,
            of_input,
            of_recurrent,
            word,
            step,
            low,
            high,
            CELL,
            INPUT,
            RECURRENT,
            JOINT,
            WIDTH,
        )
        if SLICE == 0:
            operand = h.to(kind)
            x0 = matmul(m0, operand, x0, PRECISION, INTERPRETED)
            if GATES > 1:
                x1 = matmul(m1, operand, x1, PRECISION, INTERPRETED)
                if GATES == 3:
                    x3 = matmul(m2, operand, x3, PRECISION, INTERPRETED)
                else:
                    x2 = matmul(m2, operand, x2, PRECISION, INTERPRETED)
                    x3 = matmul(m3, operand, x3, PRECISION, INTERPRETED)
        else:
            for s in range(0, WIDTH, SLICE):
                weights_inside = unit_inside & (column[None, :] < PITCH - s)
                operand = tl.load(states + s + at_slice, row_inside & (column[:, None] < WIDTH - s), 0.0)
                m0 = tl.load(w_hh + s + at_weights, weights_inside, 0.0)
                x0 = matmul(m0, operand, x0, PRECISION, INTERPRETED)
                if GATES > 1:
                    m1 = tl.load(w1 + s + at_weights, weights_inside, 0.0)
                    m2 = tl.load(w2 + s + at_weights, weights_inside, 0.0)
                    x1 = matmul(m1, operand, x1, PRECISION, INTERPRETED)
                    if GATES == 3:
                        x3 = matmul(m2, operand, x3, PRECISION, INTERPRETED)
                    else:
                        m3 = tl.load(w3 + s + at_weights, weights_inside, 0.0)
                        x2 = matmul(m2, operand, x2, PRECISION, INTERPRETED)
                        x3 = matmul(m3, operand, x3, PRECISION, INTERPRETED)
        x0, x1, x2, x3, h, c = cell_forward(
            x0, x1, x2, x3, h, c, of_products, word, step, low, high, CELL, ELEMENTWISE
        )
        states += size
        tl.store(states + at, h.to(kind), inside)
        if SAVE and GATES > 1:
            store_four(activations, at_activations, inside, x0, x1, x2, x3, WIDTH)
            activations += size * 4
        if SAVE and CELL == "lstm":
            cells += size
            tl.store(cells + at, c, inside)
        if SLICE > 0:
            tl.debug_barrier()
        projection += p_step
        step = tl.add(step, 1, sanitize_overflow=False)
    if CELL == "lstm":
        tl.store(last_c + start + at, c, inside)


@triton.jit(do_not_specialize=["steps", "rows"])
def backward(
    d_outputs,
    o_network,
    o_step,
    o_row,
    o_unit,
    d_last_c,
    w_transposed,
    states,
    cells,
    activations,
    d_projection,
    d_hidden_n,
    dh0,
    dc0,
    steps,
    rows,
    CELL: tl.constexpr,
    FROM_OUTPUTS: tl.constexpr,
    FROM_CELL: tl.constexpr,
    GATES: tl.constexpr,
    WIDTH: tl.constexpr,
    PITCH: tl.constexpr,
    UNITS: tl.constexpr,
    ROWS: tl.constexpr,
    SLICE: tl.constexpr,
    PRECISION: tl.constexpr,
    INTERPRETED: tl.constexpr,
    LOOPS: tl.constexpr,
):
    """Take the gradient of ROWS samples of one network back through all steps; see :func:`forward`.

    ``w_transposed`` is ``(K, gates, H, PITCH)``: the transposes of the gates' matrices.
    """
    k = tl.program_id(1).to(tl.int64)
    first = tl.program_id(0).to(tl.int64) * ROWS
    unit = tl.arange(0, UNITS)[:, None]
    row = tl.arange(0, ROWS)[None, :]
    unit_inside = unit < WIDTH
    row_inside = row < rows - first
    inside = unit_inside & row_inside
    at = row * WIDTH + unit
    at_outputs = row * o_row + unit * o_unit
    at_activations = row * (4 * WIDTH) + unit
    at_gates = row * (GATES * WIDTH) + unit
    size = rows.to(tl.int64) * WIDTH
    last = (k * (steps + 1) + steps) * rows + first
    states += last * WIDTH
    ahead = (k * steps + steps - 1) * rows + first
    d_projection += ahead * (GATES * WIDTH)
    if FROM_OUTPUTS:
        d_outputs += k * o_network + (steps - 1).to(tl.int64) * o_step + first * o_row
    if GATES > 1:
        activations += ahead * (4 * WIDTH)
    if CELL == "gru":
        d_hidden_n += ahead * WIDTH
    start = (k * rows + first) * WIDTH
    dh = tl.zeros((UNITS, ROWS), tl.float32)
    dc = dh
    c = dh
    if CELL == "lstm":
        cells += last * WIDTH
        c = tl.load(cells + at, inside, 0.0)
        if FROM_CELL:
            dc = tl.load(d_last_c + start + at, inside, 0.0).to(tl.float32)

    w_transposed += k * (GATES * WIDTH * PITCH)
    w1 = w_transposed + WIDTH * PITCH
    w2 = w_transposed + 2 * WIDTH * PITCH
    w3 = w_transposed + 3 * WIDTH * PITCH
    kind = w_transposed.dtype.element_ty
    column = tl.arange(0, UNITS if SLICE == 0 else SLICE)
    at_weights = unit * PITCH + column[None, :]
    if SLICE == 0:
        weights_inside = unit_inside & (column[None, :] < PITCH)
        m0 = tl.load(w_transposed + at_weights, weights_inside, 0.0)
        if GATES > 1:
            m1 = tl.load(w1 + at_weights, weights_inside, 0.0)
            m2 = tl.load(w2 + at_weights, weights_inside, 0.0)
        if GATES > 3:
            m3 = tl.load(w3 + at_weights, weights_inside, 0.0)
    else:
        gate_slice = row * (GATES * WIDTH) + column[:, None]
        hidden_slice = row * WIDTH + column[:, None]

    for _ in range(LOOPS if INTERPRETED else steps):  # the interpreter wants a plain number
        a0 = dh
        a1 = dh
        a2 = dh
        a3 = dh
        if GATES > 1:
            a0 = tl.load(activations + at_activations, inside, 0.0).to(tl.float32)
            a1 = tl.load(activations + WIDTH + at_activations, inside, 0.0).to(tl.float32)
            a2 = tl.load(activations + 2 * WIDTH + at_activations, inside, 0.0).to(tl.float32)
            a3 = tl.load(activations + 3 * WIDTH + at_activations, inside, 0.0).to(tl.float32)
            activations -= size * 4
        h = dh
        c_before = dh
        if GATES == 1:
            h = tl.load(states + at, inside, 0.0).to(tl.float32)
        states -= size
        if CELL == "gru":
            h = tl.load(states + at, inside, 0.0).to(tl.float32)
        if CELL == "lstm":
            cells -= size
            c_before = tl.load(cells + at, inside, 0.0)
        if FROM_OUTPUTS:
            dh += tl.load(d_outputs + at_outputs, inside, 0.0).to(tl.float32)
            d_outputs -= o_step
        d0, d1, d2, d3, dh, dc = cell_backward(a0, a1, a2, a3, h, c_before, c, dh, dc, CELL)
        c = c_before
        store_gradients(d_projection, d_hidden_n, at_gates, at, inside, d0, d1, d2, d3, CELL, WIDTH)
        if SLICE == 0:
            dh = matmul(m0, d0.to(kind), dh, PRECISION, INTERPRETED)
            if GATES > 1:
                dh = matmul(m1, d1.to(kind), dh, PRECISION, INTERPRETED)
                if GATES == 3:
                    dh = matmul(m2, d3.to(kind), dh, PRECISION, INTERPRETED)
                else:
                    dh = matmul(m2, d2.to(kind), dh, PRECISION, INTERPRETED)
                    dh = matmul(m3, d3.to(kind), dh, PRECISION, INTERPRETED)
        else:
            tl.debug_barrier()  # what one thread stored others read
            for s in range(0, WIDTH, SLICE):
                weights_inside = unit_inside & (column[None, :] < PITCH - s)
                slice_inside = row_inside & (column[:, None] < WIDTH - s)
                m0 = tl.load(w_transposed + s + at_weights, weights_inside, 0.0)
                e0 = tl.load(d_projection + s + gate_slice, slice_inside, 0.0)
                dh = matmul(m0, e0, dh, PRECISION, INTERPRETED)
                if GATES > 1:
                    m1 = tl.load(w1 + s + at_weights, weights_inside, 0.0)
                    m2 = tl.load(w2 + s + at_weights, weights_inside, 0.0)
                    e1 = tl.load(d_projection + s + WIDTH + gate_slice, slice_inside, 0.0)
                    dh = matmul(m1, e1, dh, PRECISION, INTERPRETED)
                    if GATES == 3:
                        e2 = tl.load(d_hidden_n + s + hidden_slice, slice_inside, 0.0)
                        dh = matmul(m2, e2, dh, PRECISION, INTERPRETED)
                    else:
                        m3 = tl.load(w3 + s + at_weights, weights_inside, 0.0)
                        e2 = tl.load(d_projection + s + 2 * WIDTH + gate_slice, slice_inside, 0.0)
                        e3 = tl.load(d_projection + s + 3 * WIDTH + gate_slice, slice_inside, 0.0)
                        dh = matmul(m2, e2, dh, PRECISION, INTERPRETED)
                        dh = matmul(m3, e3, dh, PRECISION, INTERPRETED)
        d_projection -= size * GATES
        if CELL == "gru":
            d_hidden_n -= size
    tl.store(dh0 + start + at, dh, inside)
    if CELL == "lstm":
        tl.store(dc0 + start + at, dc, inside)


@triton.jit(do_not_specialize=["rows", "later"])
def step_forward(
    hidden,
    projection,
    p_network,
    p_row,
    b_hh,
    h_before,
    h_network,
    h_after,
    c_before,
    c_network,
    c_after,
    activations,
    a_network,
    table,
    later,
    ids,
    ids_network,
    rows,
    CELL: tl.constexpr,
    INPUT: tl.constexpr,
    RECURRENT: tl.constexpr,
    JOINT: tl.constexpr,
    ELEMENTWISE: tl.constexpr,
    SAVE: tl.constexpr,
    BIAS: tl.constexpr,
    GATES: tl.constexpr,
    WIDTH: tl.constexpr,
    UNITS: tl.constexpr,
    ROWS: tl.constexpr,
):
    """Do what one step does besides the product with W_hh, which is ``hidden`` ``(K, N, gates * H)``."""
    k = tl.program_id(2).to(tl.int64)
    first = tl.program_id(0).to(tl.int64) * ROWS
    unit = tl.program_id(1) * UNITS + tl.arange(0, UNITS)[:, None]
    row = tl.arange(0, ROWS)[None, :]
    row_inside = row < rows - first
    inside = (unit < WIDTH) & row_inside
    at = row * WIDTH + unit
    at_gates = row * (GATES * WIDTH) + unit
    b0, b1, b2, b3 = load_bias(b_hh + k * (GATES * WIDTH), unit, unit < WIDTH, CELL, WIDTH, BIAS)
    x0, x1, x2, x3 = load_gates(
        projection + k * p_network + first * p_row, row * p_row + unit, inside, CELL, WIDTH
    )
    hidden += (k * rows + first) * (GATES * WIDTH)
    x0 += tl.load(hidden + at_gates, inside, 0.0).to(tl.float32) + b0
    if GATES > 1:
        x1 += tl.load(hidden + WIDTH + at_gates, inside, 0.0).to(tl.float32) + b1
        y2 = tl.load(hidden + 2 * WIDTH + at_gates, inside, 0.0).to(tl.float32)
        if GATES == 3:
            x3 += y2 + b3
        else:
            x2 += y2 + b2
            x3 += tl.load(hidden + 3 * WIDTH + at_gates, inside, 0.0).to(tl.float32) + b3

    table += k * 10
    of_input = load_noise(table, 0)
    of_recurrent = load_noise(table, 1)
    of_products = load_noise(table, 2)
    step = tl.add(tl.load(table).to(tl.uint32, bitcast=True), later.to(tl.uint32), sanitize_overflow=False)
    sample = tl.load(ids + k * ids_network + first + row, row_inside, 0)
    low = sample.to(tl.uint32)
    high = (sample >> 32).to(tl.uint32)
    word = unit.to(tl.uint32)
    x0, x1, x2, x3 = add_noise(
        x0, x1, x2, x3, of_input, of_recurrent, word, step, low, high, CELL, INPUT, RECURRENT, JOINT, WIDTH
    )
    h = x0
    c = x0
    if CELL == "gru":
        h = tl.load(h_before + k * h_network + first * WIDTH + at, inside, 0.0).to(tl.float32)
    if CELL == "lstm":
        c = tl.load(c_before + k * c_network + first * WIDTH + at, inside, 0.0)
    x0, x1, x2, x3, h, c = cell_forward(
        x0, x1, x2, x3, h, c, of_products, word, step, low, high, CELL, ELEMENTWISE
    )
    tl.store(h_after + k * h_network + first * WIDTH + at, h.to(h_after.dtype.element_ty), inside)
    if CELL == "lstm":
        tl.store(c_after + k * c_network + first * WIDTH + at, c, inside)
    if SAVE and GATES > 1:
        activations += k * a_network + first * (4 * WIDTH)
        store_four(activations, row * (4 * WIDTH) + unit, inside, x0, x1, x2, x3, WIDTH)


@triton.jit(do_not_specialize=["rows"])
def step_backward(
    d_outputs,
    o_network,
    o_row,
    o_unit,
    through_weights,
    direct,
    dc,
    states,
    h_network,
    c_before,
    c_after,
    c_network,
    activations,
    a_network,
    d_projection,
    d_network,
    d_hidden_n,
    n_network,
    rows,
    CELL: tl.constexpr,
    FROM_OUTPUTS: tl.constexpr,
    FROM_LATER: tl.constexpr,
    GATES: tl.constexpr,
    WIDTH: tl.constexpr,
    UNITS: tl.constexpr,
    ROWS: tl.constexpr,
):
    """Take the gradient back through one step but for the product with W_hh.

    ``through_weights`` and ``direct`` are the two parts of the gradient of h that the later step gave; ``direct`` and
    ``dc`` are replaced by those for the step before.
    """
    k = tl.program_id(2).to(tl.int64)
    first = tl.program_id(0).to(tl.int64) * ROWS
    unit = tl.program_id(1) * UNITS + tl.arange(0, UNITS)[:, None]
    row = tl.arange(0, ROWS)[None, :]
    inside = (unit < WIDTH) & (row < rows - first)
    at = row * WIDTH + unit
    start = (k * rows + first) * WIDTH
    dh = tl.zeros((UNITS, ROWS), tl.float32)
    if FROM_OUTPUTS:
        o = d_outputs + k * o_network + first * o_row
        dh += tl.load(o + row * o_row + unit * o_unit, inside, 0.0).to(tl.float32)
    if FROM_LATER:
        dh += tl.load(through_weights + start + at, inside, 0.0).to(tl.float32)
        if CELL == "gru":
            dh += tl.load(direct + start + at, inside, 0.0)
    a0 = dh
    a1 = dh
    a2 = dh
    a3 = dh
    h = dh
    c = dh
    before = dh
    d_cell = dh
    if GATES > 1:
        activations += k * a_network + first * (4 * WIDTH)
        at_activations = row * (4 * WIDTH) + unit
        a0 = tl.load(activations + at_activations, inside, 0.0).to(tl.float32)
        a1 = tl.load(activations + WIDTH + at_activations, inside, 0.0).to(tl.float32)
        a2 = tl.load(activations + 2 * WIDTH + at_activations, inside, 0.0).to(tl.float32)
        a3 = tl.load(activations + 3 * WIDTH + at_activations, inside, 0.0).to(tl.float32)
    if CELL == "lstm":
        before = tl.load(c_before + k * c_network + first * WIDTH + at, inside, 0.0)
        c = tl.load(c_after + k * c_network + first * WIDTH + at, inside, 0.0)
        d_cell = tl.load(dc + start + at, inside, 0.0)
    else:
        h = tl.load(states + k * h_network + first * WIDTH + at, inside, 0.0).to(tl.float32)
    d0, d1, d2, d3, dh, d_cell = cell_backward(a0, a1, a2, a3, h, before, c, dh, d_cell, CELL)
    d_projection += k * d_network + first * (GATES * WIDTH)
    d_hidden_n += k * n_network + first * WIDTH
    store_gradients(
        d_projection, d_hidden_n, row * (GATES * WIDTH) + unit, at, inside, d0, d1, d2, d3, CELL, WIDTH
    )
    if CELL == "lstm":
        tl.store(dc + start + at, d_cell, inside)
    if CELL == "gru":
        tl.store(direct + start + at, dh, inside)
