"""The documents say what is true: commands run, options are listed, links lead somewhere."""

from __future__ import annotations

import ast
import random
import re
import shlex
import shutil
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from documented_steps import FENCE, REDIRECTIONS, Background, run, steps

from enzyme_stability import __version__, cli
from enzyme_stability.config.base import Strict
from enzyme_stability.config.delta_tm import DeltaTmConfig, ExpectedProfileSettings
from enzyme_stability.config.serving import ServingConfig
from enzyme_stability.configuration import compose
from enzyme_stability.data.tables import known_tables
from enzyme_stability.data.variant_tables import PUBLIC_TABLES
from enzyme_stability.encoders.checkpoint_files import write_record
from enzyme_stability.encoders.known_checkpoints import KNOWN_CHECKPOINTS
from enzyme_stability.sequence import AMINO_ACIDS
from enzyme_stability.variants.model import DeltaTmModel
from tiny_models import save_tiny_model

REPOSITORY = Path(__file__).parents[2]
PAGES = sorted((REPOSITORY / "docs").rglob("*.md"))
DOCUMENTS = [*sorted(REPOSITORY.glob("*.md")), *PAGES]
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
CONF = REPOSITORY / "src" / "enzyme_stability" / "conf"

_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_ROUNDING_CELSIUS = 0.05  # another processor may sum in another order


def _seen_from_here(path: Path) -> str:
    return path.relative_to(REPOSITORY).as_posix()


def sections(text: str) -> dict[str, str]:
    """The text below each heading of the second level, by that heading."""
    outside = FENCE.sub(lambda block: re.sub("^#", " ", block.group(), flags=re.MULTILINE), text)
    starts = [match.start() for match in re.finditer("^## ", outside, re.MULTILINE)]
    parts = [text[start:end] for start, end in pairwise([*starts, len(text)])]
    return {part.split("\n", 1)[0].removeprefix("## "): part for part in parts}


def made_up_inputs(folder: Path) -> None:
    """The files that the README takes for the reader's own, or for those of its first commands."""
    choose = random.Random(0)
    measured = ["id,sequence,tm,growth_temperature", *made_up_rows(choose, 400)]
    learn = [f"{row},{number}" for number, row in enumerate(made_up_rows(choose, 800))]
    header = "id,sequence,tm_celsius,growth_temperature_celsius,cluster"
    designs = [row.split(",")[1] for row in measured[1:6]]
    rows = [f"d{number},{chain},{'' if number else 30}" for number, chain in enumerate(designs)]
    (folder / "designs.csv").write_text("\n".join(["design,designed,host_growth", *rows]) + "\n")
    (folder / "measured.csv").write_text("\n".join(measured) + "\n")
    (folder / "learn.csv").write_text("\n".join([header, *learn]) + "\n")
    changes = {"D18L": -1.2, "D66L": 0.8, "D66I": 1.1, "N93I": -0.4, "N46I": -2.3, "N19I": 0.3}
    variants = [f"{variant},{change}" for variant, change in changes.items()]
    (folder / "measured_variants.csv").write_text("\n".join(["variant,delta_tm_celsius", *variants]) + "\n")
    shutil.copytree(REPOSITORY / "examples", folder / "examples")


def made_up_rows(choose: random.Random, count: int) -> Iterator[str]:
    """Id, chain, Tm and growth temperature; charged, aliphatic chains melt at higher temperatures."""
    for number in range(count):
        hot = choose.random()
        weights = [1 + 2 * (hot if letter in "EIKRVY" else 1 - hot) for letter in AMINO_ACIDS]
        chain = "".join(choose.choices(AMINO_ACIDS, weights, k=choose.randint(80, 160)))
        yield f"p{number},{chain},{40 + 40 * hot + choose.gauss(0, 2):.1f},{20 + 50 * hot:.0f}"


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tiny model with random weights in the place of the one that the documents fetch; nothing asks a network."""
    known = KNOWN_CHECKPOINTS["prot_bert"]
    folder = save_tiny_model("prot_bert", tmp_path / "models" / known.name, width=16, layers=1)
    write_record(folder, known.name, known.repository, known.revision, known.licence)
    monkeypatch.setenv("ENZYME_STABILITY_MODELS", str(folder.parent))
    monkeypatch.setenv("ENZYME_STABILITY_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("ENZYME_STABILITY_DATABASE", f"sqlite:///{tmp_path / 'service.db'}")
    return folder


@pytest.fixture
def background() -> Iterator[Background]:
    found = Background()
    yield found
    found.end()


@pytest.mark.parametrize("title", [title for title, text in sections(README).items() if any(steps(text))])
@pytest.mark.usefixtures("stand_in")
def test_what_the_readme_shows_runs_in_order(
    title: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, background: Background
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    made_up_inputs(here)
    monkeypatch.chdir(here)
    for kind, step in steps(sections(README)[title].replace("8080", background.port)):
        if kind == "python":
            exec(compile(step, "README.md", "exec"), {})  # noqa: S102 - our own text
        elif step.startswith("enzyme-stability serve"):
            background.start(step)
        else:
            # one asks a person to look where made-up figures are odd, or says that a dozen proteins are too few
            fine = {0, 1, 3} if " monitor " in step else {0}
            assert run(step, monkeypatch) in fine, step


def test_the_excerpt_of_the_demo_is_what_is_printed(
    examples: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    assert run(f"enzyme-stability predict {shlex.quote(str(examples))}", monkeypatch) == 0
    printed = {row[0]: row for row in map(_cells, capfdbinary.readouterr().out.decode().splitlines())}
    excerpt = next(block for language, block in FENCE.findall(README) if language == "text" and "tm_celsius" in block)
    shown = [_cells(line) for line in excerpt.splitlines() if line != "..."]
    assert len(shown) > 1
    for row in shown:
        assert row == pytest.approx(printed[row[0]], abs=_ROUNDING_CELSIUS)


def _cells(line: str) -> list[str | float]:
    return [float(cell) if re.fullmatch(r"\d+\.\d+", cell) else cell for cell in line.split(",")]


def leaves(command: typer.core.TyperGroup, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], object]]:
    for name, inner in command.commands.items():
        if isinstance(inner, typer.core.TyperGroup):
            yield from leaves(inner, (*path, name))
        else:
            yield (*path, name), inner


COMMANDS = dict(leaves(typer.main.get_command(cli.app)))
USAGE = (REPOSITORY / "docs" / "usage.md").read_text(encoding="utf-8")


def options_of(command: object) -> set[str]:
    return {option for parameter in command.params for option in parameter.opts if option.startswith("-")}


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_the_usage_page_lists_the_options_of_a_command_and_no_other(path: tuple[str, ...]) -> None:
    heading = re.compile(rf"`enzyme-stability {' '.join(path)}[ `]")
    (section,) = [text for title, text in sections(USAGE).items() if heading.match(title)]
    listed = {option for cell in re.findall(r"^\| *(`-.*?) *\|", section, re.MULTILINE) for option in _options(cell)}
    assert listed == options_of(COMMANDS[path])


def test_the_usage_page_lists_the_options_of_the_program() -> None:
    assert options_of(typer.main.get_command(cli.app)) <= set(_options(USAGE.split("\n## ")[0]))


def _options(text: str) -> list[str]:
    return re.findall(r"`(--?[a-z][a-z-]*)`", text)


@pytest.mark.parametrize("document", DOCUMENTS, ids=_seen_from_here)
def test_every_documented_command_line_is_understood(document: Path) -> None:
    for kind, step in steps(document.read_text(encoding="utf-8")):
        if kind == "bash":
            words = shlex.split(step, comments=True)[1:]
            words = words[: next((place for place, word in enumerate(words) if word in REDIRECTIONS), None)]
            path = next(path for path in (tuple(words[:2]), tuple(words[:1])) if path in COMMANDS)
            COMMANDS[path].make_context(" ".join(path), words[len(path) :])  # raises a usage error


@pytest.mark.parametrize("document", DOCUMENTS, ids=_seen_from_here)
def test_what_documented_programs_import_is_there(document: Path) -> None:
    for kind, step in steps(document.read_text(encoding="utf-8")):
        if kind == "python":
            imports = [node for node in ast.walk(ast.parse(step)) if isinstance(node, ast.Import | ast.ImportFrom)]
            exec(compile(ast.Module(imports, []), document.name, "exec"), {})  # noqa: S102 - our own text


@pytest.mark.parametrize("document", DOCUMENTS, ids=_seen_from_here)
def test_links_lead_to_files_and_headings_that_are_there(document: Path) -> None:
    text = re.sub(r"`[^`\n]*`", "", FENCE.sub("", document.read_text(encoding="utf-8")))
    for link in _LINK.findall(text):
        if link.startswith(("https://", "http://")):
            continue
        file, _, anchor = link.partition("#")
        target = (document.parent / file).resolve() if file else document
        assert target.is_file(), link
        assert not anchor or anchor in _anchors(target), link


def _anchors(document: Path) -> set[str]:
    """Addresses of the headings, as code hosting sites make them."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", document.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


TRAINING = (REPOSITORY / "docs" / "training.md").read_text(encoding="utf-8")
TRACKING = (REPOSITORY / "docs" / "tracking.md").read_text(encoding="utf-8")


def settings_in(text: str) -> dict[str, Any]:
    """The defaults that tables of settings give; those in words are left as they stand."""
    rows = re.findall(r"^\| `([\w.]+)` \| (.*?) \|", text, re.MULTILINE)
    return {name: yaml.safe_load(cell.strip("`")) if cell.startswith("`") else cell for name, cell in rows}


def dotted(values: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Settings as they are given on the command line."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from dotted(value, f"{above}{name}.")
        elif name != "kind":
            yield f"{above}{name}", value


def composed(*overrides: str) -> dict[str, Any]:
    """Every setting with its value where only ``overrides`` are given."""
    return dict(dotted(compose(["data.path=required", *overrides]).model_dump(mode="json")))


def test_the_training_page_has_every_setting_with_its_default() -> None:
    run = TRAINING[TRAINING.index("### The run") : TRAINING.index("### encoder=")]
    common = {name: value for name, value in composed().items() if not name.startswith(("encoder.", "head."))}
    assert settings_in(run) | settings_in(TRACKING) == common


@pytest.mark.parametrize("name", ["prot_bert", "composition"])
def test_the_training_page_has_every_setting_of_an_encoder(name: str) -> None:
    assert_settings("encoder", name, composed(f"encoder={name}"))


@pytest.mark.parametrize("name", sorted(path.stem for path in (CONF / "head").glob("*.yaml")))
def test_the_training_page_has_every_setting_of_a_head(name: str) -> None:
    encoder = ["encoder=composition"] if name == "stacked" else []
    assert_settings("head", name, composed(f"head={name}", *encoder))


def assert_settings(group: str, name: str, expected: Mapping[str, Any]) -> None:
    (section,) = re.findall(rf"^### {group}={name}$(.*?)(?=^##)", TRAINING, re.MULTILINE | re.DOTALL)
    shown = settings_in(section)
    wanted = {key: value for key, value in expected.items() if key.startswith(f"{group}.")}
    assert shown.keys() == wanted.keys()
    plain = {key for key, value in wanted.items() if not _holds_groups(value)}
    assert {key: shown[key] for key in plain} == {key: wanted[key] for key in plain}


def _holds_groups(value: object) -> bool:
    return isinstance(value, list) and any(isinstance(item, Mapping) for item in value)


@pytest.mark.parametrize("group", ["encoder", "head", "data", "split", "trainer", "tracking", "experiment"])
def test_the_training_page_has_every_choice_of_a_group(group: str) -> None:
    (row,) = re.findall(rf"^\| `{group}` \| (.*)$", TRAINING, re.MULTILINE)
    assert {path.stem for path in (CONF / group).glob("*.yaml")} <= set(re.findall(r"`(\w+)`", row))


@pytest.mark.parametrize(
    ("command", "settings"), [("expected-profile", ExpectedProfileSettings()), ("train", DeltaTmConfig())]
)
def test_the_page_on_mutations_has_every_setting_with_its_default(command: str, settings: Strict) -> None:
    page = (REPOSITORY / "docs" / "mutations.md").read_text(encoding="utf-8")
    (section,) = re.findall(rf"^### Settings of {command}$(.*?)(?=^##|\Z)", page, re.MULTILINE | re.DOTALL)
    assert settings_in(section) == dict(dotted(settings.model_dump(mode="json")))


def test_the_page_on_the_service_has_every_setting_with_its_default() -> None:
    text = (REPOSITORY / "docs" / "service.md").read_text(encoding="utf-8")
    section = sections(text)["Batches and limits"]
    own = {name.strip("` ") for name in section.rsplit("options of their own:", 1)[1].rstrip(". \n").split(",")}
    known = ServingConfig().model_dump(mode="json")
    assert settings_in(section) == {name: value for name, value in known.items() if name not in own}


def test_the_page_on_mutations_has_the_figures_of_the_shipped_model() -> None:
    page = (REPOSITORY / "docs" / "mutations.md").read_text(encoding="utf-8")
    folds = DeltaTmModel.builtin().manifest["training"]["folds"]
    for row, figure in {
        "Pearson *r*": "pearson",
        "Spearman": "spearman",
        "Spearman within proteins": "protein_spearman",
        "AUC of telling stabilising ones": "auc",
    }.items():
        judged = [folds["plain"]["delta_tm"], folds["with_relatives"]["delta_tm"], folds["plain"]["formula"]]
        cells = ["{value:.2f} ({low:.2f} to {high:.2f})".format_map(of[figure]) for of in judged]
        assert f"| {row} | {' | '.join(cells)} |" in page


def test_the_data_page_names_every_public_table() -> None:
    page = (REPOSITORY / "docs" / "data.md").read_text(encoding="utf-8")
    assert set(known_tables()) | set(PUBLIC_TABLES) <= set(re.findall(r"`(\w+)`", page))


def test_the_index_leads_to_every_page() -> None:
    index = REPOSITORY / "docs" / "index.md"
    pages = {page.relative_to(index.parent).as_posix() for page in PAGES}
    assert pages - {"index.md"} <= set(_LINK.findall(index.read_text(encoding="utf-8")))


def test_the_citation_names_this_version() -> None:
    assert f"\nversion: {__version__}\n" in (REPOSITORY / "CITATION.cff").read_text(encoding="utf-8")
