"""Label sets against PTB-XL's own table."""

import ast

import numpy as np
import pytest

from mets_ray.errors import ConfigError
from mets_ray.tasks.label_sets import LabelSet, label_matrix, load_label_sets
from tests.support.tables import csv_rows

PTBXL_TASKS = ("ptbxl_super", "ptbxl_sub", "ptbxl_form", "ptbxl_rhythm")


def test_label_sets_are_ptbxls_table(data_folder):
    expected: dict[str, dict[str, list[str]]] = {task: {} for task in PTBXL_TASKS}
    for row in csv_rows(data_folder / "ptb-xl" / "scp_statements.csv"):
        code = row[""]
        if row["diagnostic"] == "1.0":
            expected["ptbxl_super"].setdefault(row["diagnostic_class"], []).append(code)
            expected["ptbxl_sub"].setdefault(row["diagnostic_subclass"], []).append(code)
        for kind in ("form", "rhythm"):
            if row[kind] == "1.0":
                expected[f"ptbxl_{kind}"][code] = [code]
    found = load_label_sets("ptbxl")
    assert {task: {name: list(codes) for name, codes in found[task].classes.items()} for task in found} == expected
    assert [found[task].task for task in found] == list(found)


def test_label_matrix():
    labels = LabelSet("heart", {"MI": ("IMI", "AMI"), "CD": ("CLBBB",), "ANY": ("IMI", "CLBBB")})
    matrix, keep = label_matrix(labels, [["IMI", "SR"], ["SR"], [], ["CLBBB", "AMI", "IMI"]])
    assert matrix.tolist() == [[True, False, True], [False] * 3, [False] * 3, [True, True, True]]
    assert keep.tolist() == [True, False, False, True]
    empty, nothing = label_matrix(labels, [])
    assert empty.shape == (0, 3)
    assert nothing.shape == (0,)


def test_label_matrix_of_real_records(data_folder):
    records = csv_rows(data_folder / "ptb-xl" / "ptbxl_database.csv")
    codes = [list(ast.literal_eval(row["scp_codes"])) for row in records]
    statements = {row[""]: row for row in csv_rows(data_folder / "ptb-xl" / "scp_statements.csv")}
    label_set = load_label_sets("ptbxl")["ptbxl_super"]
    matrix, keep = label_matrix(label_set, codes)
    classes = list(label_set.classes)
    for row, record in enumerate(codes):
        expected = {statements[code]["diagnostic_class"] for code in record if statements[code]["diagnostic"] == "1.0"}
        assert {classes[column] for column in np.flatnonzero(matrix[row])} == expected
        assert keep[row] == bool(expected)
    assert 0 < keep.sum() < len(keep)


def test_an_unknown_family_gets_a_suggestion():
    with pytest.raises(ConfigError, match=r"no packaged label set is called `ptb-xl`(.|\n)*did you mean `ptbxl`\?"):
        load_label_sets("ptb-xl")
