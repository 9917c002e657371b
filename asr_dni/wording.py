"""Numbers in sentences."""


def count(number: float, noun: str, nouns: str | None = None) -> str:
    """Return a number of things.

    Args:
        number: how many.
        noun: what one of them is.
        nouns: what several are, if not ``noun`` with an s.

    >>> count(1, "epoch"), count(0, "epoch"), count(2, "batch", "batches")
    ('1 epoch', '0 epochs', '2 batches')
    """
    return f"{number} {noun if number == 1 else nouns or noun + 's'}"
