"""What the server needs of release.json, read with msgspec: pydantic and the whole contract would cost it 10 MB.

The supervisor has checked the document as `edgewright_contract.release` says before it names it to the server.
"""

import msgspec


class BadDocument(ValueError):
    """The bytes are no release.json; the sentence says where."""


class _Part(msgspec.Struct, frozen=True, rename="camel"):
    """Other fields are passed over: they were judged by the supervisor."""


class Window(_Part, frozen=True):
    """The model's input: `seconds` samples of raw watts at 1 Hz; a new window begins every `hop_seconds`."""

    seconds: int
    hop_seconds: int


class Histogram(_Part, frozen=True):
    """Bin i counts values of at least edge i-1 and less than edge i."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]


class Reference(_Part, frozen=True):
    """What the variant answered on validation windows."""

    threshold: float
    confidence: Histogram
    mean_watts: Histogram


class Variant(_Part, frozen=True):
    """One file of the release; digest as `sha256:…`."""

    name: str
    digest: str
    reference: Reference | None = None


class Release(_Part, frozen=True):
    """One release.json."""

    version: int
    labels: tuple[str, ...]
    window: Window
    variants: tuple[Variant, ...]

    def variant(self, name: str) -> Variant:
        """The variant of that name.

        Raises:
            KeyError: there is none.
        """
        for variant in self.variants:
            if variant.name == name:
                return variant
        raise KeyError(name)


_decoder = msgspec.json.Decoder(Release)


def read(data: bytes) -> Release:
    """From the bytes of release.json.

    Raises:
        BadDocument: with the place and the reason.
    """
    try:
        return _decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise BadDocument(f"release.json: {error}") from None
