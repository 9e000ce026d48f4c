"""Published beside measured: read from files, put between the marks of a page."""

import pandas as pd
import pytest

from bench.basics.errors import UsageError
from bench.basics.results import RESULTS
from bench.commands.published import BEGIN, END, comparison, update
from bench.kept.store import RENAMED, Store
from bench.methods import registered_methods
from bench.published import main


@pytest.fixture
def results(tmp_path):
    """A results folder with published.csv as it is, and one run that measured some of it."""
    folder = tmp_path / "results"
    fit, hull = (
        folder / "paper_cpu" / "experiments" / name for name in ("training_fit", "separability_data")
    )
    fit.mkdir(parents=True)
    hull.mkdir(parents=True)
    (folder / "published.csv").write_bytes((RESULTS / "published.csv").read_bytes())
    pd.DataFrame(
        {
            "model": ["convnet", "convnet", "mlp"],
            "images": 500,
            "epoch": [4, 8, 8],
            "accuracy": [0.6, 0.7, 0.9],
        }
    ).to_csv(fit / "rows.csv", index=False)
    pd.DataFrame({"target": ["cat", "cat", "dog"], "separated": [True, False, True]}).to_csv(
        hull / "rows.csv", index=False
    )
    pd.DataFrame(
        {
            "dataset": ["mnist_38", "mnist_38"],
            "norm": "l1",
            "comparison": ["closed form", "refined"],
            "level": 0.5,
            "factor": [2.389, 9.0],
        }
    ).to_csv(folder / "paper_cpu" / "claim.csv", index=False)
    return folder


def test_measured_values_stand_beside_published_ones(results):
    table = comparison(results)
    assert "| 73.4 % | 70.0% on 500 images after 8 epochs (paper_cpu) |" in table
    assert "1 of 2 cats proved separable; 1 of 1 dogs proved separable (paper_cpu)" in table
    assert "mnist_38 x 2.38 (paper_cpu)" in table
    assert "not measured yet" in table


def test_every_tuned_comparison_counts_and_the_untuned_one_no_more(results):
    claim = pd.read_csv(results / "paper_cpu" / "claim.csv")
    for name, dataset, factor in (("verdict", "mnist_38", 1.04), ("verdict_fashion", "shirts", 0.97)):
        (results / name).mkdir()
        claim.assign(dataset=dataset, factor=factor).to_csv(results / name / "claim.csv", index=False)
    table = comparison(results)
    assert "mnist_38 x 1.04 (verdict)" in table and "shirts x 0.97 (verdict_fashion)" in table
    assert "x 2.38" not in table


def test_pages_are_rewritten_between_the_marks_only(results, capsys):
    pages = [results / "README.md", results.parent / "README.md"]
    for page in pages:
        page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    assert main(["--results", str(results)]) == 0
    for page in pages:
        text = page.read_text()
        assert text.startswith("before\n") and text.endswith(f"{END}\nafter\n")
        assert "73.4 %" in text and "old" not in text
    assert not update(pages[1], comparison(results))


def test_the_central_claim_of_a_run_is_shown_below_the_table(results):
    (results / "paper_cpu" / "claim.md").write_text("# FCNN against the rest\n\n## Closed form\n\n| a |\n")
    page = results / "README.md"
    for path in (page, results.parent / "README.md"):
        path.write_text(f"{BEGIN}{END}")
    main(["--results", str(results)])
    text = page.read_text()
    assert text.index("73.4 %") < text.index("## FCNN against the rest") < text.index("### Closed form")


def marked(results):
    pages = [results / "README.md", results.parent / "README.md"]
    for page in pages:
        page.write_text(f"{BEGIN}\nold\n{END}\n")
    return pages


def test_the_table_is_written_for_latex_too(results, tmp_path, capsys):
    pages, file = marked(results), tmp_path / "published.tex"
    assert main(["--results", str(results), "--latex", str(file)]) == 0
    text = file.read_text()
    assert r"\begin{tabular}" in text and text.count("{") == text.count("}")
    # One row for each published value, with its signs escaped.
    lines = [line for line in comparison(results).splitlines() if line.startswith("| ")]
    assert text.count(r"\\") >= len(lines) - 1
    assert r"73.4 \%" in text and r"paper\_cpu" in text
    assert str(file) in capsys.readouterr().out and "73.4 %" in pages[0].read_text()


@pytest.mark.parametrize("bad", ["page", "marks", "folder"])
def test_what_cannot_be_written_leaves_every_file_as_it_was(bad, results, tmp_path, capsys):
    pages, file = marked(results), tmp_path / "published.tex"
    if bad == "folder":
        file = tmp_path / "none" / "published.tex"
    if bad == "page":
        pages.pop().unlink()
    if bad == "marks":
        pages[1].write_text("no marks")
    before = [page.read_text() for page in pages]
    assert main(["--results", str(results), "--latex", str(file)]) == 2
    told = capsys.readouterr().err
    assert told.startswith("bench.published: ") and told.count("\n") == 1
    assert [page.read_text() for page in pages] == before and not file.exists()


def test_a_page_without_marks_and_an_unknown_quantity_are_refused(results, tmp_path):
    page = tmp_path / "page.md"
    for text in ("nothing here", f"before\n{BEGIN}\nafter", f"before\n{END}\nafter", f"{END}\n{BEGIN}"):
        page.write_text(text)
        with pytest.raises(UsageError, match="lacks the lines"):
            update(page, "text")
        assert page.read_text() == text
    (results / "published.csv").write_text(
        "quantity,dataset,subject,published,precision,source\nluck,,a,b,c,d\n"
    )
    with pytest.raises(UsageError, match="quantities among"):
        comparison(results)


def test_the_committed_pages_have_the_marks():
    for page in (RESULTS / "README.md", RESULTS.parent / "README.md"):
        assert page.read_text(encoding="utf-8").count(BEGIN) == 1


def test_a_run_from_before_shows_methods_under_the_names_they_have_now():
    run, _, _ = Store(RESULTS / "quick").read_run()
    titles = {name: facts["title"] for name, facts in run["methods"].items()}
    assert titles["alpha_beta_crown"] == "Branch and bound (α,β-CROWN style)"
    assert titles["ibp"] == "CROWN (IBP-trained)" and titles["crown"] == "CROWN"
    assert not set(RENAMED) & {method.title for method in registered_methods().values()}
