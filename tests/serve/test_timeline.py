"""`POST /v1/timeline` over real HTTP: a line for each window, gaps left out, limits, what is held and given back."""

import base64
import contextlib
import json
import socket
import threading
import time

import httpx
import numpy as np
import pytest

from mets_ray.ecg.ecg import LEADS, Ecg
from mets_ray.ecg.preprocess import SignalConfig, preprocess
from mets_ray.ecg.timeline import first_sample, part_from, window_starts
from mets_ray.ecg.wfdb import read_wfdb
from mets_ray.errors import RecordError
from mets_ray.model.bundle import load_bundle
from mets_ray.model.predictor import Predictor
from mets_ray.serve import recordings
from mets_ray.serve.recordings import Recording
from tests.support.serving import json_ecg, make_bundle, npy, plain_server, synthetic_ecg
from tests.support.zips import zipped

LABELS = ["atrial fibrillation", "sinus rhythm", "left bundle branch block"]
NPY = {"content-type": "application/x-npy"}
RATE = 100
QUERY = {"unit": "uV", "sampling_rate_hz": RATE, "leads": ",".join(LEADS), "candidate_labels": LABELS}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return make_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="module")
def client(bundle):
    with plain_server(bundle, max_timelines=2, batch_size=4) as (client, _):
        yield client


def recording(seconds=65, rate=RATE):
    """int16 µV [lead, sample]: other made-up patients every ten seconds."""
    parts = [synthetic_ecg(index, sampling_rate_hz=rate).signal_mv for index in range(-(-seconds // 10))]
    return np.rint(np.concatenate(parts, axis=1)[:, : seconds * rate] * 1000).astype(np.int16)


def ask(client, body, headers=NPY, **query):
    given = {name: value for name, value in (QUERY | query).items() if value is not None}
    return client.post("/v1/timeline", params=given, content=body, headers=headers)


def lines_of(answer):
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/x-ndjson"
    return [json.loads(line) for line in answer.text.splitlines()]


def refused(answer, status, reason):
    assert (answer.status_code, answer.json()["error"]["reason"]) == (status, reason), answer.text


def settled(done):
    """How many windows were cut, once no more are."""
    before = -1
    while len(done) != before:
        before = len(done)
        time.sleep(0.5)
    return before


def test_each_window_is_scored_as_an_ecg_of_its_own(client, bundle):
    signal_uv = recording()
    head, *windows, summary = lines_of(ask(client, npy(signal_uv), stride_s=7.5, signals=True))
    assert (head["line"], head["classes"], head["window_s"], head["stride_s"]) == ("head", LABELS, 10.0, 7.5)
    assert (head["windows"], head["duration_s"], head["prompt_set"]) == (8, 65.0, None)
    assert "not a medical device" in head["notice"]
    assert [w["reason"] for w in head["warnings"]] == ["end_not_scored"]
    assert [window["start_s"] for window in windows] == [7.5 * n for n in range(8)]
    assert all(window["end_s"] == window["start_s"] + 10 and window["line"] == "window" for window in windows)
    predictor = Predictor(load_bundle(str(bundle)))
    for window in windows:
        first = round(window["start_s"] * RATE)
        part = Ecg(signal_uv[:, first : first + 1000] / 1000, LEADS, RATE)
        expected = {row.class_name: row for row in predictor.zero_shot(part, LABELS)}
        assert window["scores"] == pytest.approx([expected[name].score for name in LABELS], abs=2e-6)
        assert window["similarities"] == pytest.approx([expected[name].similarity for name in LABELS], abs=2e-6)
        sent = np.frombuffer(base64.b64decode(window["signal_uv"]), "<i2").reshape(12, 1000)
        np.testing.assert_array_equal(sent, preprocess(part, predictor.signal))
    scores = np.array([window["scores"] for window in windows])
    assert (summary["line"], summary["windows"], summary["scored"], summary["left_out"]) == ("summary", 8, 8, {})
    for row, column in zip(summary["classes"], scores.T, strict=True):
        assert row["mean_score"] == pytest.approx(column.mean(), abs=1e-5)
        assert row["highest_score"] == pytest.approx(column.max(), abs=1e-5)
        assert windows[int(column.argmax())]["start_s"] == row["highest_at_s"]
        assert row["share_above"] == pytest.approx((column > 0.5).mean())
    assert sum(row["share_first"] for row in summary["classes"]) == pytest.approx(1)
    assert {"decode", "classes", "windows", "total"} <= set(summary["timings_ms"])


def test_a_label_that_stands_alone_is_split_as_for_one_ecg(client):
    head, *_ = lines_of(ask(client, npy(recording(20)), candidate_labels="atrial fibrillation, sinus rhythm"))
    assert head["classes"] == ["atrial fibrillation", "sinus rhythm"]
    apart = ["infarction, anterior", "infarction, inferior"]
    assert lines_of(ask(client, npy(recording(20)), candidate_labels=apart))[0]["classes"] == apart
    assert lines_of(ask(client, npy(recording(20)), candidate_labels=[apart[0], ""]))[0]["classes"] == apart[:1]


def test_windows_over_gaps_and_flat_leads_are_left_out_with_their_reason(client):
    signal_mv = recording() / 1000
    signal_mv[3, 1500] = np.nan  # 15 s
    signal_mv[7, 3000:4000] = 0.125  # 30 to 40 s
    signal_mv[0, 4200] = 900
    _, *windows, summary = lines_of(ask(client, npy(signal_mv), unit="mV"))
    assert [window.get("left_out") for window in windows] == [
        None, "non_finite", None, "flat_lead", "amplitude_too_large", None,
    ]  # fmt: skip
    assert "V2" in windows[3]["message"]
    assert "scores" not in windows[1]
    assert summary["scored"] == 3
    assert summary["left_out"] == {"amplitude_too_large": 1, "flat_lead": 1, "non_finite": 1}


def test_a_recording_without_one_usable_window_has_a_summary_that_says_so(client):
    _, *windows, summary = lines_of(ask(client, npy(np.zeros((12, 3000), np.int16))))
    assert [window["left_out"] for window in windows] == ["flat_lead"] * 3
    assert (summary["scored"], summary["classes"], summary["left_out"]) == (0, [], {"flat_lead": 3})


def test_other_formats_and_other_rates(client, tmp_path):
    signal_uv = recording(30)
    expected = [window["scores"] for window in lines_of(ask(client, npy(signal_uv)))[1:-1]]
    assert len(expected) == 3
    table = ",".join(LEADS) + "\n" + "\n".join(",".join(map(str, row)) for row in signal_uv.T)
    plain = {"leads": None}
    octets = {"content-type": "application/octet-stream"}
    answers = {
        "octets": ask(client, npy(signal_uv), octets),
        "zip": ask(client, zipped({"r.npy": npy(signal_uv)}), octets),
        "csv": ask(client, table, {"content-type": "text/csv"}, **plain),
        "fortran": ask(client, npy(np.asfortranarray(signal_uv))),
        "one of three dimensions": ask(client, npy(signal_uv[None])),
        "json": client.post(
            "/v1/timeline",
            json={"ecg": json_ecg(Ecg(signal_uv / 1000, LEADS, 100.0)), "candidate_labels": LABELS, "stride_s": 10},
        ),
        "in parts of unknown length": ask(client, (npy(signal_uv)[n : n + 999] for n in range(0, 73000, 999))),
    }
    for name, answer in answers.items():
        scores = [window["scores"] for window in lines_of(answer)[1:-1]]
        assert np.allclose(scores, expected, atol=2e-6), name
    head, *_ = lines_of(ask(client, npy(recording(30, 250)), sampling_rate_hz=250))
    assert [w["reason"] for w in head["warnings"]] == ["resampled"]


def test_half_an_hour_of_two_leads(client, data_folder):
    """MIT-BIH 101: MLII and V1 at 360 Hz. The other leads are zeros, which is said once."""
    files = [
        ("file", (f"101.{ending}", (data_folder / f"mitdb/101.{ending}").read_bytes())) for ending in ("hea", "dat")
    ]
    query = {"candidate_labels": LABELS, "signals": True}
    head, *windows, summary = lines_of(client.post("/v1/timeline", params=query, files=files))
    assert (head["windows"], head["duration_s"]) == (180, pytest.approx(650_000 / 360))
    assert [warning["reason"] for warning in head["warnings"]] == ["resampled", "leads_missing", "end_not_scored"]
    assert (summary["scored"], summary["left_out"]) == (180, {})
    sent = np.frombuffer(base64.b64decode(windows[100]["signal_uv"]), "<i2").reshape(12, 1000)
    assert sent.any(axis=1).tolist() == [lead in ("II", "V1") for lead in LEADS]
    ecg = read_wfdb(str(data_folder / "mitdb/101"))
    absent = tuple(lead for lead in LEADS if lead not in ("II", "V1"))
    part = Ecg(ecg.signal_mv[:, 360_000:], ecg.leads, 360.0, absent_leads=absent)
    np.testing.assert_array_equal(sent, preprocess(part, SignalConfig(100, 10.0, highpass_hz=0.5)))


def test_what_cannot_be_scored_is_refused_before_the_first_line(client, bundle):
    signal_uv = recording(20)
    refused(ask(client, npy(signal_uv[:, :999])), 422, "too_short")
    refused(ask(client, npy(signal_uv), unit=None), 422, "missing_parameter")
    refused(ask(client, npy(signal_uv), unit="furlong"), 422, "unknown_unit")
    refused(ask(client, npy(signal_uv), sampling_rate_hz=3), 422, "implausible_sampling_rate")
    refused(ask(client, npy(signal_uv), sampling_rate_hz=float("nan")), 422, "implausible_sampling_rate")
    refused(ask(client, npy(signal_uv), stride_s=0), 422, "bad_fields")
    refused(ask(client, npy(signal_uv), stride_s=1e-300), 422, "bad_fields")
    refused(ask(client, npy(recording(50, 500)), stride_s=0.001, sampling_rate_hz=500), 422, "stride_too_small")
    refused(ask(client, npy(recording(100, 500)), stride_s=0.002, sampling_rate_hz=500), 422, "too_many_windows")
    refused(ask(client, npy(signal_uv), leads=",".join(["I", *LEADS[:11]])), 422, "duplicate_lead")
    refused(ask(client, npy(signal_uv), leads=",".join([*LEADS[:11], "ECG1"])), 422, "unknown_lead")
    refused(ask(client, npy(signal_uv), candidate_labels=None), 422, "no_classes")
    refused(ask(client, b""), 400, "malformed_body")
    refused(ask(client, b"\x93NUMPYxxx"), 400, "malformed_body")
    refused(ask(client, b"ECG", {"content-type": "application/octet-stream"}), 422, "unsupported_format")
    refused(ask(client, b"ECG", {"content-type": "text/plain"}), 415, "unsupported_media_type")
    refused(ask(client, npy(np.zeros((12, 361_000), np.int16))), 422, "too_long")
    refused(ask(client, npy(np.zeros((2, 12, 1000), np.int16))), 413, "too_many_ecgs")
    with plain_server(bundle, max_timeline_bytes=20_000, max_body_bytes=10_000) as (small, _):
        refused(ask(small, npy(signal_uv)), 413, "too_large")
        refused(ask(small, iter([npy(signal_uv)])), 413, "too_large")
        table = ",".join(LEADS) + "\n" + "0.125,0.25,0.5,0.125,0.25,0.5,0.125,0.25,0.5,0.125,0.25,0.5\n" * 200
        refused(ask(small, table, {"content-type": "application/octet-stream"}), 413, "too_large")
        refused(small.post("/v1/timeline", json={"ecg": json_ecg(synthetic_ecg())}), 413, "too_large")
    with plain_server(bundle, max_timeline_bytes=60_000) as (small, _):
        lines_of(ask(small, npy(signal_uv)))
        refused(ask(small, npy(signal_uv), signals=True), 422, "answer_too_large")


def test_the_deadline_ends_an_answer_with_an_error_and_not_with_a_summary(bundle, monkeypatch):
    cut, done = Recording.cut, []

    def slower(*arguments):
        done.append(1)
        time.sleep(0.0 if len(done) <= 4 else 0.5)  # the first batch is in time on a slow machine too
        return cut(*arguments)

    monkeypatch.setattr(Recording, "cut", slower)
    with plain_server(bundle, timeline_deadline_s=2, batch_size=4, deadline_s=5) as (client, _):
        head, *windows, last = lines_of(ask(client, npy(recording(200))))
    assert head["windows"] == 20
    assert 0 < len(windows) < 20
    assert (last["line"], last["error"]["reason"]) == ("error", "deadline")


def test_a_client_that_goes_away_stops_the_work_and_gives_back_its_room(bundle, monkeypatch):
    cut, done = Recording.cut, []
    monkeypatch.setattr(Recording, "cut", lambda *arguments: (time.sleep(0.1), done.append(1), cut(*arguments))[2])
    body = npy(recording(600))
    with plain_server(bundle, max_timelines=1, batch_size=4) as (client, _):
        with client.stream("POST", "/v1/timeline", params=QUERY, content=body, headers=NPY) as answer:
            lines = answer.iter_lines()  # kept: httpx closes the connection with its iterator
            next(lines)
            refused(ask(client, body), 503, "busy")
        assert settled(done) < 60
        done.clear()
        assert len(lines_of(ask(client, npy(recording(20))))) == 4


def test_room_is_given_back_after_a_refusal(client):
    for _ in range(5):
        refused(ask(client, b"no array"), 400, "malformed_body")
    lines_of(ask(client, npy(recording(20))))


def test_a_client_that_reads_slowly_holds_the_work_back(bundle, monkeypatch):
    """What the client has not taken yet is not computed: the server's and the kernel's buffers hold a few windows."""
    cut, done = Recording.cut, []
    monkeypatch.setattr(Recording, "cut", lambda *arguments: (done.append(1), cut(*arguments))[1])
    with plain_server(bundle, batch_size=8) as (client, _):
        query = QUERY | {"signals": True, "stride_s": 0.1, "candidate_labels": LABELS}
        with client.stream("POST", "/v1/timeline", params=query, content=npy(recording(65)), headers=NPY) as answer:
            parts = answer.iter_raw()  # kept: httpx closes the connection with its iterator
            next(parts)
            assert settled(done) < 551, "the whole answer was computed although nobody read it"


def test_others_are_answered_while_a_long_recording_is_scored(client):
    body, waited = npy(recording(150, 500)), []
    long = threading.Thread(
        target=lambda: lines_of(
            httpx.post(
                f"{client.base_url}/v1/timeline",
                params=QUERY | {"sampling_rate_hz": 500, "stride_s": 1},
                content=body,
                headers=NPY,
                timeout=60,
            )
        )
    )
    ecg = npy(recording(10))
    long.start()
    while long.is_alive():
        began = time.perf_counter()
        answer = client.post("/v1/zero-shot", params=QUERY, content=ecg, headers=NPY)
        waited.append(time.perf_counter() - began)
        assert answer.status_code == 200
        time.sleep(0.01)
    assert len(waited) > 3
    assert max(waited) < 2


@pytest.mark.parametrize("rate", [50.0, 99.99, 360.0, 499.7, 1000.0])
@pytest.mark.parametrize("stride_s", [0.1, 2.5, 10.0, 33.3])
def test_starts_are_all_that_fit_and_parts_give_what_the_whole_gives(rate, stride_s):
    signal = SignalConfig(100, 10.0)
    samples = np.random.default_rng(0).normal(0, 0.3, (12, int(60 * rate)))
    ecg = Ecg(samples, LEADS, rate)
    starts_s = window_starts(samples.shape[1], rate, signal, stride_s)
    every = [round(n * stride_s, 6) for n in range(2000)]
    assert starts_s == [s for s in every if round(s * rate) + int(10 * rate + 1e-9) <= samples.shape[1]]
    for start_s in (starts_s[0], starts_s[-1]):
        rest = Ecg(samples[:, first_sample(start_s, rate) :], LEADS, rate)
        np.testing.assert_array_equal(preprocess(part_from(ecg, start_s, signal), signal), preprocess(rest, signal))


def test_a_recording_that_is_too_short_has_no_window():
    with pytest.raises(RecordError, match=r"9\.990 s"):
        window_starts(999, 100, SignalConfig(100, 10.0), 1.0)


def test_clients_that_send_nothing_cost_others_nothing(bundle, monkeypatch):
    monkeypatch.setattr(recordings, "_SILENCE_S", 1.0)
    body = npy(recording(20))
    headers = ("Host: 127.0.0.1", "Content-Type: application/x-npy", "Content-Length: 9")
    request = "\r\n".join(("POST /v1/timeline?unit=uV&candidate_labels=a HTTP/1.1", *headers, "", ""))
    with plain_server(bundle, max_timelines=2, batch_size=4) as (client, _), contextlib.ExitStack() as connections:
        address = (client.base_url.host, client.base_url.port)
        for _ in range(3):
            connections.enter_context(socket.create_connection(address)).sendall(request.encode())
        assert ask(client, body).status_code == 200
        begun = connections.enter_context(socket.create_connection(address))
        begun.sendall(request.encode() + b"abc")  # and then nothing
        begun.settimeout(20)
        answer = begun.recv(4096).decode()
        assert " 408 " in answer.splitlines()[0]
        assert "silent_body" in answer
        assert ask(client, body).status_code == 200
