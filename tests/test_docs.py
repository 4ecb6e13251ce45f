"""The pages under docs tell the truth: figures equal their JSON, links lead somewhere, prose is wrapped."""

import functools
import json
import re

import pytest
from conftest import ROOT

from jepa_mpc import envs
from jepa_mpc.cli import COMMANDS
from jepa_mpc.eval import metrics
from jepa_mpc.eval.variations import VARIATIONS

RESULTS = (ROOT / "docs/results.md").read_text()
PAGES = [
    *(ROOT / "docs").glob("*.md"),
    *(ROOT / "docs/log").glob("*.md"),
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
]


def tables(text):
    """Every Markdown table of a page, as rows of cells by column."""
    for block in re.findall(r"(?:^\|.*\n)+", text, re.M):
        head, _, *rows = [[cell.strip() for cell in line[1:-1].split("|")] for line in block.splitlines()]
        yield [dict(zip(head, row, strict=True)) for row in rows]


@functools.cache
def stored(link):
    return json.loads((ROOT / "docs" / link).read_text())


def percent(*shares):
    return [f"{100 * share:.1f}" for share in shares]


def interval(rate, low, high):
    return "{} [{}, {}]".format(*percent(rate, low, high))


def both(baselines, rate):
    return " / ".join(percent(rate(baselines["random"]), rate(baselines["do_nothing"])))


def of_pairs(results, row):
    """What a row of held-out pairs must say, by column."""
    protocol, baselines = results["protocol"], results["baselines"]
    assert "n" in row or results["num_episodes"] == 200
    goal = f"{protocol['goal_offset']} steps ahead" if protocol["goal_offset"] else "of another episode"
    touched = interval(results["success_rate"], *results["success_interval"])
    free = both(baselines, lambda baseline: baseline["success_rate"])
    return {
        "told": row.get("told"),
        "task, goal": f"`{results['task']}`, {goal}",
        "protocol, model": re.sub(r"\w+", protocol["name"], row.get("protocol, model", ""), count=1),
        "random / do nothing, %": free,
        "touched, random / do nothing, %": free,
        "in half the budget, %": percent(results["within_half_budget"][0])[0],
        "median steps": f"{results['median_steps']:g} of {protocol['budget']}",
        "success, % [95 %]": touched,
        "touched, % [95 %]": touched,
        "held, %": percent(results["held"][0])[0],
        "held, random / do nothing, %": both(baselines, lambda baseline: baseline["held"][0]),
        "held, % [95 %]": interval(*results["held"]),
        "n": str(results["num_episodes"]),
    }


def of_robot(results, row):
    """What a row of a robot with delays must say."""
    return {
        "driven": row["driven"],
        "reached, % [95 %]": interval(results["success_rate"], *results["success_interval"]),
        "held, % [95 %]": interval(*results["held"]),
        "blocks decided in time, %": f"{100 * results['in_time'][0]:.2f}",
        "beginnings seen, %": percent(results["seen"][0])[0],
    }


def of_suite(results, row):
    """What a row of the control suite's returns must say."""
    task = results["suite"][row["task"].strip("`")]
    random, nothing = (task["baselines"][name]["mean"] for name in ("random", "do_nothing"))
    low, high = task["interval"]
    return {
        "task": row["task"],
        "random / do nothing": f"{random:.0f} / {nothing:.0f}",
        "return [95 %]": f"{task['mean']:.0f} [{low:.0f}, {high:.0f}]",
        "lowest": f"{task['minimum']:.0f}",
        "n": str(task["num_episodes"]),
    }


def of_decision(results, row):
    """What a row of decision times must say."""
    names = {
        d["name"] + (f", {d['batch_size']} episodes at once" if d["batch_size"] > 1 else ""): d
        for d in results["decisions"]
    }
    decision = names[row["one decision"]]
    swm = results["stable_worldmodel"] if decision["name"] == "paper size" else None
    return {
        "one decision": row["one decision"],
        "samples × rounds × horizon": "{samples} × {rounds} × {horizon}".format(**decision),
        "threads, products": f"{results['threads']}, {decision['precision']}",
        "median / p95": f"{decision['median_ms']:,.0f} / {decision['p95_ms']:,.0f} ms",
        "× floor": f"{decision['times_floor']:.1f}",
        "stable-worldmodel, ratio": f"{swm['median_ms']:,.0f} ms, {swm['ours_over_theirs']:.2f}" if swm else "–",
        **{f"{part}, ms": f"{decision[f'{part}_ms']:,.1f}" for part in ("encode", "rollout", "sampling", "rest")},
        "multiply-adds": f"{decision['multiply_adds'] / 1e6:,.0f} M",
    }


def of_rendering(results, row):
    """What a row of rendering speed must say."""
    task = results["tasks"][row["task"].strip("`")]
    return {
        "task": row["task"],
        "pictures a second": f"{task['fast_frames_per_second']:,.0f}",
        "with the simulator's defaults": f"{task['default_frames_per_second']:,.0f}",
        "ratio": f"{task['ratio']:.1f}",
        "mean difference, of 255": f"{task['mean_difference']:.2f}",
    }


def of_distance(row):
    """What a row of cube pairs between two distances, in cm, must say."""
    figures = [int(figure) / 100 for figure in re.findall(r"\d+", row["the cube must go"])]
    low, high = figures if len(figures) == 2 else (*figures, 9.0)
    cells = [row["the cube must go"]]
    for protocol in ("standard", "far"):
        episodes = stored(f"results/tasks/cube-{protocol}.json")["episodes"]
        reached = [episode["success"] for episode in episodes if low <= episode["distance"] < high]
        cells.append(f"{interval(*metrics.rate(sum(reached), len(reached)))}, n = {len(reached)}")
    return dict(zip(row, cells, strict=True))


def expected(row):
    """What the row must say by column; None if it belongs to a table without figures of ours."""
    if "run" in row:
        results = stored(re.fullmatch(r"\[JSON\]\((.*)\)", row["run"])[1])
        kinds = {"suite": of_suite, "decisions": of_decision, "in_time": of_robot, "episodes": of_pairs}
        of_kind = next(of_kind for key, of_kind in kinds.items() if key in results)
        return {**of_kind(results, row), "run": row["run"]}
    if "pictures a second" in row:
        return of_rendering(stored("results/rendering.json"), row)
    if "the cube must go" in row:
        return of_distance(row)
    links = {
        column: found[1] for column, cell in row.items() if (found := re.fullmatch(r"\[.*\]\((results/.*)\)", cell))
    }
    rates = {column: f"[{100 * stored(link)['success_rate']:.1f}]({link})" for column, link in links.items()}
    if "noticed, %" in row:
        rates["noticed, %"] = percent(stored(next(iter(links.values())))["noticed"][0])[0]
    return {**row, **rates} if rates else None


def wrong(text):
    """The cells of a page that its JSON does not bear out, and how many cells were held against it."""
    pairs = [(row, want) for table in tables(text) for row in table if (want := expected(row)) is not None]
    return [(row[c], want[c]) for row, want in pairs for c in row if row[c] != want[c]], sum(len(r) for r, _ in pairs)


def test_every_figure_of_the_results_equals_its_json():
    cells, checked = wrong(RESULTS)
    assert not cells
    assert checked > 300


def test_a_wrong_figure_in_any_column_is_caught():
    unchecked = {"run", "driven", "told", "protocol, model", "published, %", "whose, and what differs", "source"}
    altered = 0
    for table in tables(RESULTS):
        row = table[0]
        for column in row.keys() - unchecked if expected(row) else ():
            figure = row[column].split("](")[0]
            if re.search(r"\d", figure):
                other = re.sub(r"\d(?=\D*$)", lambda digit: str((int(digit[0]) + 1) % 10), figure)
                page = RESULTS.replace(f"| {row[column]} |", f"| {row[column].replace(figure, other)} |")
                assert wrong(page)[0], f"{column}: {other}"
                altered += 1
    assert altered > 30


def test_rows_that_a_baseline_touches_for_free_are_judged_by_holding():
    for table in tables(RESULTS):
        for row in table:
            free = row.get("touched, random / do nothing, %", row.get("random / do nothing, %"))
            if free is not None:
                assert (max(map(float, free.split(" / "))) > 100 / 3) == ("held, % [95 %]" in row), row


def test_the_variations_of_the_protocols_are_the_registrys():
    (rows,) = [rows for rows in tables((ROOT / "docs/protocols.md").read_text()) if "variation" in rows[0]]
    said = {name: row["slight, medium, strong"] for row in rows for name in re.findall(r"`(\w+)`", row["variation"])}
    assert set(said) == set(VARIATIONS)
    for name, numbers in said.items():
        wanted = {f"{strength:g}" for strength in VARIATIONS[name].strengths}
        assert wanted <= set(re.findall(r"\d+(?:\.\d+)?", numbers)), name


def test_the_tasks_of_the_protocols_are_the_registrys():
    (rows,) = [rows for rows in tables((ROOT / "docs/protocols.md").read_text()) if "far budget" in rows[0]]
    assert {row["task"].strip("`") for row in rows} == set(envs.task_names())
    for row in rows:
        spec = envs.get_task(row["task"].strip("`"))
        assert row["reached when, within"].endswith(f", {spec.pose.tolerance:g} {spec.pose.unit}")
        assert row["goal ahead, budget"] == f"{spec.goal_offset} in {spec.budget}"
        assert row["far budget"] == str(spec.far_budget)
        assert row["strict"].endswith(f"for {spec.strict_steps} steps")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere_and_prose_is_wrapped(page):
    text = page.read_text()
    headings = {
        path: {re.sub(r"[^\w\- ]", "", line.lstrip("# ").lower()).replace(" ", "-") for line in lines}
        for path in PAGES
        if (lines := re.findall(r"^#+ .*", path.read_text(), re.M))
    }
    for target, anchor in re.findall(r"\]\((?!http)([^)#]*)#?([^)]*)\)", text):
        path = (page.parent / target).resolve() if target else page
        assert path.exists(), target
        assert not anchor or anchor in headings[path], f"{target}#{anchor}"
    prose = re.sub(r"^```.*?^```|^\|.*?$|^!\[.*?$", "", text, flags=re.M | re.S)
    assert not [line for line in prose.splitlines() if len(line) > 100]


def test_every_entry_of_the_log_is_dated_and_ends_in_a_verdict():
    topics = sorted((ROOT / "docs/log").glob("[!R]*.md"))
    assert topics
    for topic in topics:
        for entry in topic.read_text().split("\n## ")[1:]:
            assert re.match(r"\d{4}-\d\d-\d\d: \w", entry), entry[:60]
            assert entry.strip().split("\n\n")[-1].startswith("**Verdict:** "), entry[:60]
        assert f"({topic.name})" in (ROOT / "docs/log/README.md").read_text()


def test_commands_are_those_of_the_command_line():
    for page in PAGES:
        for block in re.findall(r"^```bash\n(.*?)^```", page.read_text(), re.M | re.S):
            for words in re.findall(r"^(?:jepa-mpc|\$run) (\S+) ?(\S*)", block, re.M):
                assert {" ".join(words), words[0]} & set(COMMANDS), f"{page.name}: {words}"


def test_the_citation_names_the_newest_version():
    version = re.search(r"^version: (\S+)$", (ROOT / "CITATION.cff").read_text(), re.M)[1]
    assert re.search(r"^## (\d\S+)", (ROOT / "CHANGELOG.md").read_text(), re.M)[1] == version
