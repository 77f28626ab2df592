"""Numbers on the command line: accepted as by click; other texts are refused with a plain message."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from neuralsdf.cli.main import LazyGroup, main
from neuralsdf.cli.shared.byte_sizes import read_size
from neuralsdf.cli.shared.number_types import Number, WholeNumber

_CONTEXT, _OPTION = click.Context(click.Command("extract")), click.Option(["--max-memory"])

TEXTS = ["", "1", "-1", " 7 ", "+3", "1_000", "1e5", "1.5", "0x10", "inf", "-inf", "٣", "8192", "8193",
         "9" * 5000, "abc", "1 2", "0", "0.5", "--", "None"]  # fmt: skip


def _taken(kind: click.ParamType, text: str) -> object:
    try:
        return repr(kind.convert(text, None, None))
    except click.BadParameter:
        return None


@pytest.mark.parametrize(
    ("ours", "clicks"),
    [
        (WholeNumber(), click.INT),
        (WholeNumber(1), click.IntRange(min=1)),
        (WholeNumber(8, 8192), click.IntRange(8, 8192)),
        (Number(), click.FLOAT),
        (Number(0), click.FloatRange(min=0)),
        (Number(0, 0.5), click.FloatRange(0, 0.5)),
    ],
)
def test_the_same_texts_are_numbers_as_for_click(ours: Number, clicks: click.ParamType) -> None:
    assert [_taken(ours, text) for text in TEXTS] == [_taken(clicks, text) for text in TEXTS]
    assert _taken(ours, "nan") is None  # passes every limit, so `--timeout nan` would be none


def test_every_number_of_every_command_is_refused_in_plain_words() -> None:
    """By our own types: click's say `'1e5' is not a valid integer range`."""
    assert isinstance(main, LazyGroup)
    context = click.Context(main)
    seen = set()
    for name in main.list_commands(context):
        command = main.get_command(context, name)
        assert command is not None
        for parameter in command.params:
            kind = parameter.type
            assert not isinstance(kind, click.types.IntParamType | click.types.FloatParamType), parameter
            if isinstance(kind, Number):
                with pytest.raises(click.BadParameter, match=r"'many' is not a (whole )?number") as error:
                    kind.convert("many", parameter, click.Context(command))
                assert str(kind) in error.value.message
                seen.add(parameter.name)
    assert {"resolution", "width", "beta", "timeout", "threads", "seed", "faces"} <= seen
    assert str(WholeNumber(8, 8192)) == "a whole number from 8 to 8192"


@pytest.mark.parametrize("shard", ["0/2", "3/2", "1", "a/2", "-1/2", "1/" + "9" * 5000])
def test_a_shard_that_is_none_is_refused(shard: str) -> None:
    result = CliRunner().invoke(main, ["batch-convert", ".", "-o", "out", "--shard", shard])
    assert result.exit_code == 2
    assert "is not i/n with i from 1 to n" in result.stderr


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("7", 7),
        ("500MB", 500 * 10**6),
        ("1.5 g", 15 * 10**8),
        ("2GiB", 2 << 30),
        ("3ki", 3 << 10),
        ("1tb", 10**12),
    ],
)
def test_sizes_have_decimal_and_binary_prefixes(text: str, count: int) -> None:
    assert read_size(_CONTEXT, _OPTION, text) == count


@pytest.mark.parametrize("text", ["", "0", "0.1", "5ib", "-1M", "2GG", "M", "1e3", "9" * 30])
def test_other_texts_are_not_sizes(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is not a size such as 500MB or 2GB"):
        read_size(_CONTEXT, _OPTION, text)
