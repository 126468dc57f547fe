"""What a source may refuse a delivery with. The docstring is the message; the detail never echoes the input."""


class TriggerError(Exception):
    """A delivery could not be taken."""

    def __init__(self, detail: str = "") -> None:
        self.detail = detail or (self.__doc__ or "").strip()
        super().__init__(self.detail)


class NotAuthentic(TriggerError):
    """The credential or signature is missing or wrong."""


class NotUnderstood(TriggerError):
    """Authentic, but not of a shape that this source documents: it is kept and quarantined."""
