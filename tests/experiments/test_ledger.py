"""The ledger of published numbers: it is what its program writes, and no number looks more certain than it is."""

import doctest
import json
import re

import pytest

import ledger
from sagan_jax.config import to_dict
from sagan_jax.evaluation.protocols import parse_protocol
from sagan_jax.runs.experiments import experiment_names, load_experiment
from support.programs import EXPERIMENTS

pytestmark = pytest.mark.one_jax
LEDGER = json.loads((EXPERIMENTS / "ledger.json").read_text("utf-8"))
PAGE = (EXPERIMENTS / "LEDGER.md").read_text("utf-8")
# Numbers that are remembered and not verified. The issue that asked for the page and docs/results.md list them.
REMEMBERED = (
    "22.96 42.87 43.15 22.14 45.94 23.17 22.40 44.49 38.50 28.82 38.96 28.5 260.0 92.4 181.84 93.52 99.04 40.96"
)
REMEMBERED += " 34.62 44.4 58.1 53.0 66.8 48.9 60.1 35.7 55.3 88.1 90.2 57.5 49.3 21.6 19.5 39.7 26.0 38.0 37.2"
VERIFIED = "22.98 18.28 51.43 18.65 52.52 42.13 27.33 36.8 27.62 83.7 33.39 72.41"


def cells(group):
    """Returns the cells of the rows of all sections whose headings begin with `group`."""
    found = re.findall(rf"(?ms)^## {group}[^\n]*\n(.*?)(?=^## |\Z)", PAGE)
    rows = [line for section in found for line in section.splitlines() if line.startswith("| ")]
    return [re.split(r" \| ", row.strip("| ")) for row in rows if not row.startswith("| row ")]


def test_page_is_what_the_program_writes():
    assert ledger.page() == PAGE, "run python experiments/ledger.py"


def test_doctests_hold():
    failed, attempted = doctest.testmod(ledger)
    assert attempted
    assert not failed


def test_numbers_of_the_paper_have_a_star_exactly_where_they_are_remembered():
    shown = {row[3] for row in cells("The paper")}
    assert shown == {rf"{number}\*" for number in REMEMBERED.split()} | set(VERIFIED.split())


def test_numbers_of_the_paper_are_those_of_the_reference(shared):
    text = (shared / "reference" / "sagan.md").read_text("utf-8")
    section = text.partition("\n## 2. Published numbers")[2].partition("\n## 3.")[0]
    remembered = set(re.findall(r"([\d.]+) \[mem\]", section.partition("### Fig. 6")[0]))
    assert remembered <= set(REMEMBERED.split())
    assert set(VERIFIED.split()) <= {*re.findall(r"\*\*([\d.]+)\*\*", section), "18.65", "52.52"}


def test_numbers_and_stars_are_those_of_the_table_of_results():
    results = (EXPERIMENTS.parent / "docs" / "results.md").read_text("utf-8")
    rows = [
        row
        for group in ("The paper, Table 1", "The paper, Figures", "mmgen", "BigGAN's", "StudioGAN")
        for row in cells(group)
    ]
    for name in [
        name for name in experiment_names() if name.startswith(("imagenet_128", "sngan_")) or "studiogan" in name
    ]:
        (line,) = [line for line in results.splitlines() if line.startswith(f"| `{name}` |")]
        ours = {(row[2], row[3]) for row in rows if row[6] == f"`{name}`"}
        published = re.findall(r"(FID|IS) ([\d.]+(?:\\\*)?)", line.split(" | ")[3])
        assert published
        assert set(published) <= ours, name


def test_numbers_that_must_not_be_missing_are_there():
    shown = {row[3] for row in cells("")}
    assert {"51.82", "34.78", "12.83", "69.5", "10.35", "8.64", "about 18 to 19", "34.726"} <= shown


def test_rows_name_experiments_protocols_and_marks_that_there_are():
    for row in LEDGER["rows"]:
        assert row.get("experiment", "imagenet_128") in experiment_names()
        assert row["mark"] in LEDGER["marks"]
        assert row["protocol"] in LEDGER["protocols"]
        assert ("steps" in row) == ("experiment" in row and not row.get("narrower"))
    for facts in LEDGER["protocols"].values():
        for name in facts["ours"].values():
            assert parse_protocol(name.removesuffix("/one_split")).name in name


def row_of(name, steps, score="FID"):
    (row, *_) = [
        row for row in LEDGER["rows"] if (row.get("experiment"), row.get("steps"), row["score"]) == (name, steps, score)
    ]
    return row


def test_hours_are_images_over_the_measured_speed_or_a_range_of_shares_of_a_peak():
    assert ledger.hours(row_of("imagenet_128_no_attention", 10_000), LEDGER["speeds"]) == "0.23 (H200)"
    hours = 10_000 * 256 / 3080 / 3600
    assert f"{hours:.2f}" == "0.23"
    more = 336_000 * 256 / 3080 / 3600 * ledger.step_flops("studiogan_128") / ledger.step_flops("imagenet_128")
    assert 1.05 < more / (33.6 * hours) < 1.1
    assert ledger.hours(row_of("studiogan_128", 336_000), LEDGER["speeds"]) == f"{more:.1f} (H200)"
    assert ledger.hours(row_of("cifar10_32_studiogan", 100_000), LEDGER["speeds"]) == "0.68 to 0.71 (H200)"
    least, most = (250_000 * 524.9 / (156 * share) / 3600 for share in (0.45, 0.15))
    assert (round(least), round(most)) == (519, 1558)
    assert ledger.hours(row_of("biggan_128", 250_000), LEDGER["speeds"]) == "519 to 1,558 (A100)"


def result(name, value, **training):
    experiment = to_dict(load_experiment(name))
    experiment["training"] |= training
    return {"experiment": experiment, "values": {"fid50k_train": value}}


def test_result_is_ours_only_for_the_same_setting_and_the_same_steps():
    name = "imagenet_128_sn_equal_rates"
    row = row_of(name, 10_000)
    results = [
        result(name, 101.5, total_steps=10_000),
        result(name, 99.25, total_steps=10_000, seed=3, precision="bfloat16"),
        result(name, 1.0, total_steps=160_000),
        result(name, 2.0, total_steps=10_000, batch_size=64),
        result("imagenet_128_no_attention", 3.0, total_steps=10_000),
    ]
    results.append({"experiment": results[0]["experiment"], "values": {"fid5k_train": 4.0}})
    for change in ({"max_images": 5000}, {"sampling": "balanced"}, {"decoding": "fast"}):  # rehearsals
        results.append(result(name, 5.0, total_steps=10_000))
        results[-1]["experiment"]["data"] |= change
    assert ledger.our_values(row, LEDGER["protocols"], results) == ["101.50", "99.25"]
    assert ledger.our_values(row_of(name, 160_000), LEDGER["protocols"], results) == ["1.00"]
