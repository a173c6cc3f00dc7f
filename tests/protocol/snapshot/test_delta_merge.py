"""Pieces with the same index become one part; what cannot be read costs only itself."""

from typing import Any

import msgspec
import pytest

from openai_runs.types import UnknownAnnotation, UnknownContent
from tests.protocol.event_builders import full, message_delta, piece, snapshot_of, text


def note(index: int, **fields: Any) -> dict[str, Any]:
    """Return a piece of a text part that is a piece of an annotation."""
    return piece(
        "text", text={"annotations": [{"index": index, "type": "file_citation", **fields}]}
    )


def citation(file_id: str = "", start: int = 0, end: int = 0, quoted: str = "") -> dict[str, Any]:
    """Return an annotation as a message has it."""
    where = {"text": quoted, "start_index": start, "end_index": end}
    cited = {"file_id": file_id} if file_id else {}
    return {"type": "file_citation", "file_citation": cited, **where}


MERGED = {
    "texts are put one after the other": ([text("Hel"), text("lo")], [full("Hello")]),
    "a piece without text adds none": ([text("Hi"), text(None), piece("text")], [full("Hi")]),
    "parts are told apart by index": (
        [text("a", 1), text("b", 0), text("c", 1)],
        [full("b"), full("ac")],
    ),
    "missing indices are left out": ([text("a", 7), text("b", 2)], [full("b"), full("a")]),
    "an index below nothing is one": ([text("a", 0), text("b", -1)], [full("b"), full("a")]),
    "refusals are put one after the other": (
        [piece("refusal", refusal="I "), piece("refusal"), piece("refusal", refusal="can't")],
        [{"type": "refusal", "refusal": "I can't"}],
    ),
    "annotations merge by their own index": (
        [
            text("See [1] and [2]"),
            note(0, text="[1]"),
            note(1, text="[2]", file_citation={"file_id": "file_2"}),
            note(0, file_citation={"file_id": "file_1"}, start_index=4),
            note(0, end_index=7),
            note(1, start_index=12, end_index=15),
        ],
        [
            full(
                "See [1] and [2]",
                citation("file_1", 4, 7, "[1]"),
                citation("file_2", 12, 15, "[2]"),
            )
        ],
    ),
    "offsets and texts of annotations are replaced": (
        [
            note(0, text="a", start_index=9, end_index=9, file_citation={"file_id": "file_1"}),
            note(0, text="b", start_index=0, end_index=5, file_citation={"file_id": "file_1"}),
        ],
        [full("", citation("file_1", 0, 5, "b"))],
    ),
    "a quote is added to a citation": (
        [
            note(0, file_citation={"file_id": "file_1"}),
            note(0, file_citation={"quote": "so it is"}),
        ],
        [
            full(
                "",
                {
                    **citation(),
                    "file_citation": {"file_id": "file_1", "quote": "so it is"},
                },
            )
        ],
    ),
    "an annotation of which little is known": ([note(3)], [full("", citation())]),
    "a file path": (
        [
            piece("text", text={"annotations": [{"index": 0, "type": "file_path", "text": "x"}]}),
            piece(
                "text",
                text={
                    "annotations": [
                        {"index": 0, "type": "file_path", "file_path": {"file_id": "file_1"}}
                    ]
                },
            ),
        ],
        [
            full(
                "",
                {
                    "type": "file_path",
                    "text": "x",
                    "file_path": {"file_id": "file_1"},
                    "start_index": 0,
                    "end_index": 0,
                },
            )
        ],
    ),
    "a file path of which little is known": (
        [piece("text", text={"annotations": [{"index": 0, "type": "file_path"}]})],
        [
            full(
                "",
                {
                    "type": "file_path",
                    "text": "",
                    "file_path": {},
                    "start_index": 0,
                    "end_index": 0,
                },
            )
        ],
    ),
    "an image of a file": (
        [
            piece("image_file", image_file={"file_id": "file_1"}),
            piece("image_file", image_file={"detail": "low"}),
            piece("image_file"),
        ],
        [{"type": "image_file", "image_file": {"file_id": "file_1", "detail": "low"}}],
    ),
    "an image of a file of which nothing is known": (
        [piece("image_file")],
        [{"type": "image_file", "image_file": {"file_id": ""}}],
    ),
    "an image on the web": (
        [
            piece("image_url", image_url={"url": "https://a", "detail": "low"}),
            piece("image_url", image_url={"url": "https://b"}),
        ],
        [{"type": "image_url", "image_url": {"url": "https://b", "detail": "low"}}],
    ),
    "an image on the web of which nothing is known": (
        [piece("image_url")],
        [{"type": "image_url", "image_url": {"url": ""}}],
    ),
    "a part that becomes another kind": (
        [text("Hi"), piece("refusal", refusal="No")],
        [{"type": "refusal", "refusal": "No"}],
    ),
    "the last piece of an unknown kind": (
        [text("Hi"), piece("audio", 1, audio="a", x=1), piece("audio", 1, audio="b")],
        [full("Hi"), {"type": "audio", "audio": "b"}],
    ),
    "an unknown kind without index comes last": (
        [text("Hi", 4), {"type": "audio", "audio": "a"}],
        [full("Hi"), {"type": "audio", "audio": "a"}],
    ),
    "a known kind becomes an unknown one": (
        [text("Hi"), piece("audio", audio="a")],
        [{"type": "audio", "audio": "a"}],
    ),
    "a piece that names no kind": (
        [text("Hel"), {"index": 0, "text": {"value": "lo"}}],
        [full("Hello")],
    ),
    "a first piece that names no kind": (
        [{"index": 0, "text": {"value": "lo"}}],
        [{"text": {"value": "lo"}}],
    ),
    "an unreadable piece costs only itself": (
        [text("Hel"), piece("text", text={"value": 5}), piece("text", text=5), text("lo")],
        [full("Hello")],
    ),
    "an unreadable annotation costs only itself": (
        [text("Hi"), note(0, start_index="four"), note(1, start_index=4)],
        [full("Hi", {"type": "file_citation", "start_index": "four"}, citation(start=4))],
    ),
}


@pytest.mark.parametrize(("pieces", "content"), MERGED.values(), ids=MERGED)
def test_pieces_are_merged(pieces: list[Any], content: list[Any]) -> None:
    """One piece a delta or all in one, the parts of the message are the same."""
    one_each = snapshot_of(*(message_delta(piece) for piece in pieces))
    in_one = snapshot_of(message_delta(*pieces))

    for snapshot in (one_each, in_one):
        (built,) = snapshot.messages
        assert msgspec.to_builtins(built.content) == content


def test_unknown_parts_have_the_classes_of_a_whole_message() -> None:
    """What came in pieces looks the same as what is fetched."""
    odd = piece("text", text={"annotations": [{"index": 0, "type": "url_citation", "url": "x"}]})

    (built,) = snapshot_of(message_delta(odd, piece("audio", 1))).messages

    first: Any = built.content[0]
    assert type(first.text.annotations[0]) is UnknownAnnotation
    assert type(built.content[1]) is UnknownContent
