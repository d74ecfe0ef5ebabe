"""Filters: what is accepted, what it becomes, and that nothing of a caller reaches the index as it is."""

import pytest

from mets_ray.archive.filters import read_filter
from mets_ray.archive.schema import FILTER_COLUMNS
from mets_ray.errors import ConfigError
from mets_ray.text.reports import text_id


@pytest.mark.parametrize(
    ("where", "expression"),
    [
        ("age > 60", "age > 60.0"),
        ("age<=-1.5e1", "age <= -15.0"),
        ("sex = 'female' and age between 60 and 70", "(sex = 'female' AND (age >= 60.0 AND age <= 70.0))"),
        ("not (fold = 1 OR fold != 2)", "(NOT coalesce((fold = 1 OR coalesce(fold <> 2, true)), false))"),
        ("device not in ('a', \"b\")", "(NOT coalesce(device IN ('a', 'b'), false))"),
        ("device is not null", "device IS NOT NULL"),
        ("leads_missing is empty", "coalesce(array_length(leads_missing), 0) = 0"),
        ("leads_missing has 'V1'", "array_has(leads_missing, 'V1')"),
        ("statement_ids has -12", "array_has(statement_ids, -12)"),
        ("statement_ids has 'sinus rhythm'", f"array_has(statement_ids, {text_id('sinus rhythm')})"),
        ("site = 'O''Hara; drop table'", "site = 'O''Hara; drop table'"),
        ('site = "it\'s"', "site = 'it''s'"),
        ("not not age > 1", "age > 1.0"),
        ("  ", None),
        (None, None),
    ],
)
def test_a_filter_is_written_anew(where, expression):
    assert read_filter(where) == expression


@pytest.mark.parametrize(
    ("where", "fact"),
    [
        ("weight > 60", "`weight`, which is not a column"),
        ("embedding is null", "`embedding`, which is not a column"),
        ("shard = 'x'", "`shard`, which is not a column"),
        ("agee > 60", "`agee`, which is not a column"),
        ("age > 60; drop table ecgs", "cannot be read from '; drop table ecgs' on"),
        ("age > 60 -- all", "cannot be read from '-- all' on"),
        ("upper(sex) = 'F'", "calls `upper`: there are no functions"),
        ("record_id in (select record_id from x)", "'select' in the place of a value for `record_id`"),
        ("age > 60 union select 1", "'union' after a complete condition"),
        ("1 = 1", "'1' in the place of a column"),
        ("age > age", "'age' in the place of a value"),
        ("age > '60'", "compares `age` with '60': it takes a number"),
        ("sex = 1", "compares `sex` with 1: it takes a text in quotes"),
        ("fold = 1.5", "it takes whole numbers"),
        ("fold = 1e400", "it takes whole numbers"),
        ("recorded_at >= '03.06.2001'", "`recorded_at` with '03.06.2001': write '2001-06-03'"),
        ("recorded_at between '2001' and 'tomorrow'", "`recorded_at` with 'tomorrow'"),
        ("recorded_at has '2001'", "`recorded_at` is no list"),
        ("sex like 'f%'", "'like' after `sex`"),
        ("leads_missing = 'V1'", "`leads_missing` is a list"),
        ("age has 1", "`age` is no list"),
        ("age is empty", "`age` is no list"),
        ("(age > 60", "'the end' in the place of `)`"),
        ("age >", "'the end' in the place of a value"),
        ("sex = 'f", 'cannot be read from "\'f" on'),
        ("(" * 40 + "age > 1" + ")" * 40, "more than 32 parentheses"),
        ("not " * 1200 + "age > 1", "at most"),
        ("age > 1 or " * 500 + "age > 1", "at most"),
        ("age > 1e999", "`age` with 1e999, which is too large"),
        ("fold = 3000000000", "whole numbers of 32 bits"),
        ("statement_ids has 9223372036854775808", "whole numbers of 64 bits"),
    ],
)
def test_what_is_not_in_the_language_is_refused_with_the_columns(where, fact):
    with pytest.raises(ConfigError) as caught:
        read_filter(where)
    assert fact in caught.value.fact
    if "at most" not in fact:
        assert all(column in caught.value.hint for column in FILTER_COLUMNS)


def test_a_mistyped_column_has_a_suggestion():
    with pytest.raises(ConfigError) as caught:
        read_filter("agee > 60")
    assert "did you mean `age`?" in caught.value.hint


@pytest.mark.parametrize("column", FILTER_COLUMNS)
def test_beside_a_suggestion_stand_all_columns_whichever_is_meant(column):
    with pytest.raises(ConfigError) as caught:
        read_filter(f"{column}x is null")
    assert all(caught.value.hint.count(f"`{name}`") >= 1 for name in FILTER_COLUMNS)
