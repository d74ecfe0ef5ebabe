"""Which leads show a statement, and that a view without any of them is asked neither for it nor against it."""

import numpy as np
import pytest
import torch

from mets_ray.config.settings import AugmentConfig
from mets_ray.ecg import measured_statements
from mets_ray.ecg.ecg import LEADS
from mets_ray.model.augment import BatchPlace, draw_views
from mets_ray.model.loss import statement_losses
from mets_ray.text.embeddings import EmbeddingTable
from mets_ray.text.reports import text_id
from mets_ray.text.statements import ReportStatements
from mets_ray.training.categories import kinds_said, with_kinds
from mets_ray.training.statement_leads import StatementLeads, leads_of
from mets_ray.training.texts import Texts

LIMB, CHEST = set(LEADS[:6]), set(LEADS[6:])
INFERIOR, ANTERIOR, LATERAL = {"II", "III", "aVF"}, {"V1", "V2", "V3", "V4"}, {"I", "aVL", "V5", "V6"}


@pytest.mark.parametrize(
    ("statement", "leads"),
    [
        ("Inferior infarct, age undetermined", INFERIOR),
        ("ST & T wave abnormality, consider anterolateral and inferolateral ischemia", INFERIOR | ANTERIOR | LATERAL),
        ("Anteroseptal infarct, probably old", ANTERIOR),
        ("Septal infarct", ANTERIOR),
        ("Possible high lateral infarct", {"I", "aVL"}),
        ("minor non-diagnostic st changes laterally", LATERAL),
        ("Low voltage QRS in limb leads", LIMB),
        ("Poor R wave progression", CHEST),
        ("High left precordial voltages", CHEST),
        ("ST elevation in V1-V3", {"V1", "V2", "V3"}),
        ("ST elevation in V2 to 5", {"V2", "V3", "V4", "V5"}),
        ("t waves are inverted in i, avl, v4,5,6", {"I", "aVL", "V4", "V5", "V6"}),
        ("t waves are low or flat in ii, v3-6 and inverted in iii, avf", {"II", "V3", "V4", "V5", "V6", "III", "aVF"}),
        ("v1/v2 lead interchange", {"V1", "V2"}),
        ("Flat T waves in lead III", {"III"}),
        ("T wave inversion in III", {"III"}),
        ("ST elevation in II, III", {"II", "III"}),
        ("st segments are depressed in iii", {"III"}),
        ("R-S transition zone in V leads displaced to the right", CHEST),
        ("R in aVL", {"aVL"}),
        # Criteria say where they are measured: Sokolow-Lyon in V1, V5 and V6, Cornell in aVL and V3.
        ("Voltage criteria for left ventricular hypertrophy ( R in aVL )", {"aVL"}),
        ("Left ventricular hypertrophy ( Sokolow-Lyon )", {"V1", "V5", "V6"}),
        ("Left ventricular hypertrophy ( Cornell Product )", {"aVL", "V3"}),
        ("Minimal voltage criteria for LVH ( R in aVL, Sokolow-Lyon )", {"aVL", "V1", "V5", "V6"}),
        ("Left ventricular hypertrophy ( R in aVL, Romhilt-Estes )", set()),
        ("High QRS voltage in limb leads (Cornell)", {"aVL", "V3"}),
        ("High QRS voltage in chest leads (Sokolow-Lyon)", {"V1", "V5", "V6"}),
        # No place, although a word looks like one.
        ("Normal ECG", set()),
        ("Left anterior fascicular block", set()),
        ("left anterior hemiblock", set()),
        ("Septal hypertrophy", set()),
        ("2nd degree AV block, Mobitz II", set()),
        ("AV block II", set()),
        ("Bilateral bundle branch block", set()),
        ("Inferred from history", set()),
        ("Chest pain", set()),
        ("V10 was not recorded", set()),
    ],
)
def test_the_leads_that_show_a_statement(statement, leads):
    assert leads_of(statement) == leads


@pytest.mark.parametrize(("wall", "leads"), measured_statements._WALLS.items())
def test_measured_statements_are_seen_in_the_leads_that_they_were_measured_in(wall, leads):
    assert leads_of(f"T wave inversion in {wall}") == set(leads)


NO_REPORTS = np.zeros(3, dtype=np.int64)


def test_a_statement_is_seen_where_one_of_its_leads_is_left():
    texts = {3: "Inferior infarct", 1: "Normal ECG", 2: "ST elevation in V1, V2", 9: "Flat T waves in aVR"}
    leads = ("I", "II", "V1", "V5")  # of the model: aVR is none of them, so any lead may do
    found = StatementLeads.build(texts, leads)
    assert found.ids.tolist() == [1, 2, 3, 9]
    kept = np.array([[True, True, True, True], [True, False, False, True], [False, True, False, False]])
    np.testing.assert_array_equal(
        found.seen(NO_REPORTS, np.array([1, 3, 9]), kept),
        [[True, True, True], [True, False, True], [True, True, True]],
    )
    nothing = np.array([], dtype=np.int64)
    assert StatementLeads.build({}, leads).seen(NO_REPORTS, nothing, kept).shape == (3, 0)


def test_two_limb_leads_show_what_all_six_show():
    texts = {1: "T wave inversion in aVL", 2: "T wave inversion in V2", 3: "T wave inversion in III"}
    kept = np.array([[lead in of for lead in LEADS] for of in ({"I", "II"}, {"II", "V2"}, {"aVR", "aVF"})])
    np.testing.assert_array_equal(
        StatementLeads.build(texts, LEADS).seen(NO_REPORTS, np.array([1, 2, 3]), kept),
        [[True, False, True], [False, True, False], [True, False, True]],
    )


def test_a_kind_is_seen_where_a_statement_of_it_is():
    reports = {
        "anterior": ("Anterior infarct", "Sinus rhythm"),
        "both": ("Anterior infarct", "Inferior infarct"),
        "anywhere": ("Septal infarct", "Subendocardial infarct"),
        "block": ("Right bundle branch block",),
        "none": ("Normal ECG",),
    }
    kinds = kinds_said(reports)
    said = with_kinds(reports, kinds)
    texts = {text_id(part): part for parts in said.values() for part in parts}
    shows = StatementLeads.build(texts, LEADS, kinds)
    columns = np.sort([text_id("Myocardial infarction"), text_id("Conduction disturbance"), text_id("Normal ECG")])
    infarct = columns.tolist().index(text_id("Myocardial infarction"))
    block = columns.tolist().index(text_id("Conduction disturbance"))
    rows = np.array([text_id(report) for report in reports])
    for leads, infarcts in (({"I", "II"}, [0, 1, 1, 1, 1]), ({"V3"}, [1, 1, 1, 1, 1]), ({"aVR"}, [0, 0, 1, 1, 1])):
        kept = np.array([[lead in leads for lead in LEADS]] * len(rows))
        found = shows.seen(rows, columns, kept)
        # An ECG without an infarct is asked in any view: no lead of it shows one.
        assert found[:, infarct].tolist() == [bool(one) for one in infarcts]
        assert found[:, block].all()
        only_infarct = shows.seen(rows, columns[[infarct]], kept)
        np.testing.assert_array_equal(only_infarct, found[:, [infarct]])


def test_what_cannot_be_seen_counts_for_nothing_forward_and_gradient():
    torch.manual_seed(0)
    ecg = torch.nn.functional.normalize(torch.randn(5, 4, dtype=torch.float64), dim=-1)
    columns = torch.nn.functional.normalize(torch.randn(3, 4, dtype=torch.float64), dim=-1)
    scale, bias = torch.tensor(6.0, dtype=torch.float64), torch.tensor(-1.0, dtype=torch.float64)
    positives, seen = torch.rand(5, 3) < 0.5, torch.rand(5, 3) < 0.6
    losses = statement_losses(ecg, columns, scale, bias, positives, seen)
    for row in range(5):  # the slow way: only the columns that can be seen are there
        own = seen[row]
        alone = statement_losses(ecg[row : row + 1], columns[own], scale, bias, positives[row : row + 1, own])
        assert losses[row].item() == pytest.approx(alone.item(), rel=1e-12)
    inputs = [tensor.requires_grad_() for tensor in (ecg, columns, scale, bias)]
    assert torch.autograd.gradcheck(lambda *given: statement_losses(*given, positives, seen), inputs)
    nothing = torch.zeros_like(seen)
    (gradient,) = torch.autograd.grad(statement_losses(*inputs, positives, nothing).sum(), [inputs[0]])
    assert not gradient.any()


def test_a_batch_asks_each_view_for_what_its_leads_show():
    reports = {"a": ("Inferior infarct", "Sinus rhythm"), "b": ("ST elevation in V2", "Sinus rhythm"), "c": ("c",)}
    parts = sorted({part for of in reports.values() for part in of})
    ids = np.asarray([text_id(part) for part in parts], dtype=np.int64)
    table = EmbeddingTable.build(ids, np.random.default_rng(0).normal(size=(len(ids), 6)).astype(np.float16))
    statements = ReportStatements.build(reports)
    texts = Texts(
        table, "f", statements, statement_leads=StatementLeads.build(dict(zip(ids.tolist(), parts, strict=True)), LEADS)
    )
    rows = np.asarray([text_id(one) for one in "abcabcab"], dtype=np.int64)
    settings = AugmentConfig(lead_dropout=0.9, cropping=0.5, gain=0.1)
    views = draw_views(settings, BatchPlace(0, 0, 0, len(rows)), range(len(rows)), leads=LEADS, samples=500)
    assert views is not None
    columns = statements.columns(rows)
    names = [parts[ids.tolist().index(one)] for one in columns.tolist()]
    kept = [{lead for lead, gain in zip(LEADS, of, strict=True) if gain > 0} for of in views.gain.tolist()]
    kept = [of | LIMB if len(of & LIMB) > 1 else of for of in kept]
    seen = [[not leads_of(name) or bool(leads_of(name) & of) for name in names] for of in kept]
    assert not np.all(seen), "no view lost what it needs: nothing is tested"

    torch.manual_seed(0)
    ecg, text = torch.randn(len(rows), 4), torch.randn(len(columns), 4)
    scale, bias = torch.tensor(5.0), torch.tensor(-1.0)
    told = {"loss": "sigmoid", "row_counts": [len(rows)], "device": torch.device("cpu")}
    _, loss_of = texts.batch_loss({"text_id": rows}, views=views, **told)
    positives = torch.from_numpy(statements.positives(rows, columns))
    expected = statement_losses(ecg, text, scale, bias, positives, torch.tensor(seen)).mean()
    assert loss_of(ecg, text, scale, bias).item() == pytest.approx(expected.item(), rel=1e-6)
    _, whole = texts.batch_loss({"text_id": rows}, **told)
    assert whole(ecg, text, scale, bias).item() == pytest.approx(
        statement_losses(ecg, text, scale, bias, positives).mean().item(), rel=1e-6
    )
