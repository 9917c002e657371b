"""``python -m asr_dni`` is ``asr-dni``."""

from asr_dni.cli.main import main

if __name__ == "__main__":
    main()
