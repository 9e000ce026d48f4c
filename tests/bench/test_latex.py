"""Tables for a paper: what is written parses back to the numbers of the table, nothing is left unescaped."""

import re
from pathlib import Path

import pytest
from report_runs import METHODS, NASTY, predictions_of, radii_of, write_run

from bench.claim import main as claim
from bench.kept.store import Store
from bench.report.tables.latex import _percent, _radius, escape, markdown_latex, summary_latex
from bench.report.tables.summary import summarise


def finished_run(folder: Path) -> Path:
    frames = [*radii_of("tiny"), *radii_of(NASTY)]
    return write_run(folder / "out", frames, [predictions_of("tiny"), predictions_of(NASTY)])


def tables(text: str) -> list[tuple[str, list[list[str]]]]:
    """Caption and cells of each table; a grammar of what booktabs needs, stricter than TeX."""
    found = []
    for body in re.findall(r"\\begin\{table\}\n(.*?)\n\\end\{table\}", text, flags=re.DOTALL):
        centering, caption, begin, top, *lines, bottom, end = body.split("\n")
        assert (centering, top) == ("\\centering", "\\toprule")
        assert (bottom, end) == ("\\bottomrule", "\\end{tabular}")
        columns = re.fullmatch(r"\\begin\{tabular\}\{(lr+)\}", begin)[1]
        rows = [line.removesuffix(" \\\\").split(" & ") for line in lines if line != "\\midrule"]
        assert lines[1] == "\\midrule" and all(len(row) == len(columns) for row in rows)
        for cell in (caption, *(cell for row in rows for cell in row)):
            assert not re.search(r"(?<!\\)[%#]|[√∞ℓ]", cell) and cell.count("{") == cell.count("}")
        found.append((caption.removeprefix("\\caption{").removesuffix("}"), rows))
    return found


def test_special_signs_are_escaped():
    assert escape("50 % of a_b & c") == "50 \\% of a\\_b \\& c"
    assert escape("{x}~y^2 \\z <α>") == (
        "\\{x\\}\\textasciitilde{}y\\textasciicircum{}2 \\textbackslash{}z \\textless{}$\\alpha$\\textgreater{}"
    )


def test_the_summary_can_be_read_back(tmp_path):
    _, radii, predictions = Store(finished_run(tmp_path)).read_run()
    summary = summarise(radii, predictions)
    found = tables(summary_latex(summary))
    groups = summary.groupby(["dataset", "operating_point", "norm"], sort=True)
    assert len(found) == groups.ngroups
    for (caption, (head, *rows)), (_, panel) in zip(found, groups, strict=True):
        assert f"{panel['inputs'].max()} sensitive test inputs; radii in units" in caption
        assert head[3:5] == ["Median", "Mean"] and len(rows) == len(panel)
        for cells, (_, row) in zip(rows, panel.iterrows(), strict=True):
            if cells[3] not in ("--", "$\\infty$"):
                assert float(cells[3]) == pytest.approx(row["median_radius"], rel=1e-3)
                assert float(cells[3]) <= row["median_radius"]
            assert cells[1] == "--" or float(cells[1]) <= 100 * row["recall_sensitive"] + 1e-9


def test_shares_and_radii_are_cut_never_rounded_up():
    assert [_percent(share) for share in (0.99999, 0.12349, 0.29, 1.0)] == ["99.9", "12.3", "29.0", "100.0"]
    assert [_radius(radius) for radius in (1.23499, 0.99999, 12345.9)] == ["1.234", "0.9999", "1.234e+04"]


def test_the_claim_can_be_read_back(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(METHODS["fcnn"], "method", "fcnn")
    out = finished_run(tmp_path)
    assert claim([str(out)]) == 0
    found = tables((out / "claim.tex").read_text())
    assert [caption.split(":")[0] for caption, _ in found] == ["FCNN, closed form", "FCNN, refined"]
    sizes = [len(rows) for _, rows in found]
    assert min(sizes) > 1 and sum(sizes) == capsys.readouterr().out.count("\n| ") - 2


def test_a_markdown_table_becomes_one_with_its_heading():
    text = (
        "# All\n\n## FCNN, *one*\n\n| Data set | at 50% |\n| --- | --- |\n| `a_b` | **1.5** (2 / 3; ℓ∞) |\n"
    )
    ((caption, rows),) = tables(markdown_latex(text))
    assert caption == "FCNN, *one*"
    assert rows == [["Data set", "at 50\\%"], ["\\texttt{a\\_b}", "\\textbf{1.5} (2 / 3; $\\ell$$\\infty$)"]]
