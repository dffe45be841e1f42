"""The language server as an editor meets it: its own process, a real client over standard input and output."""

import asyncio
import shutil
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from lsprotocol import types as lsp
from pygls.lsp.client import LanguageClient

HERE = Path(__file__).parent
RECIPE = """recipe: one
uses: [mixer]
parameters:
  volume: {unit: L, default: 20, range: [5, 50]}
steps:
  - name: Fill
    during: {mixer.inlet: true}
    until: mixer.level >= volume
    within: 60 s
"""


class Client:
    """An editor with one file open."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "one.yaml"
        self.client = LanguageClient("test", "1")
        self.told: asyncio.Queue[lsp.PublishDiagnosticsParams] = asyncio.Queue()
        self.version = 0

        @self.client.feature(lsp.TEXT_DOCUMENT_PUBLISH_DIAGNOSTICS)
        def _(params: lsp.PublishDiagnosticsParams) -> None:
            self.told.put_nowait(params)

    async def open(self, text: str, path: Path | None = None) -> list[lsp.Diagnostic]:
        document = lsp.TextDocumentItem((path or self.path).as_uri(), "yaml", 1, text)
        self.client.text_document_did_open(lsp.DidOpenTextDocumentParams(document))
        return await self.problems(path or self.path)

    async def write(self, text: str) -> list[lsp.Diagnostic]:
        """The text as it is typed; nothing is saved."""
        self.version += 1
        changed = [lsp.TextDocumentContentChangeWholeDocument(text)]
        document = lsp.VersionedTextDocumentIdentifier(self.version, self.path.as_uri())
        self.client.text_document_did_change(lsp.DidChangeTextDocumentParams(document, changed))
        return await self.problems(self.path)

    async def problems(self, path: Path) -> list[lsp.Diagnostic]:
        while True:
            told = await asyncio.wait_for(self.told.get(), 30)
            if told.uri == path.as_uri():
                return list(told.diagnostics)

    def at(self, text: str, mark: str) -> tuple[lsp.TextDocumentIdentifier, lsp.Position]:
        before = text[: text.index(mark) + len(mark)]
        line = before.count("\n")
        return lsp.TextDocumentIdentifier(self.path.as_uri()), lsp.Position(line, len(before.rpartition("\n")[2]))

    async def offers(self, text: str, mark: str) -> set[str]:
        """What is offered behind a mark, in a text that need not be sound."""
        await self.write(text)
        found = await self.client.text_document_completion_async(lsp.CompletionParams(*self.at(text, mark)))
        assert isinstance(found, list)
        return {one.label for one in found}


@pytest.fixture
async def editor(tmp_path: Path) -> AsyncIterator[Client]:
    shutil.copy(HERE / "bottling" / "cell.yaml", tmp_path)
    editor = Client(tmp_path)
    await editor.client.start_io(sys.executable, "-m", "edge", "lsp")
    await editor.client.initialize_async(lsp.InitializeParams(lsp.ClientCapabilities(), root_uri=tmp_path.as_uri()))
    editor.client.initialized(lsp.InitializedParams())
    yield editor
    await editor.client.shutdown_async(None)
    editor.client.exit(None)
    await editor.client.stop()


async def test_problems_come_as_one_types_and_go_when_they_are_mended(editor: Client) -> None:
    assert await editor.open(RECIPE) == []
    (wrong,) = await editor.write(RECIPE.replace("mixer.level", "mixer.levle"))
    assert (wrong.severity, wrong.source) == (lsp.DiagnosticSeverity.Error, "edge")
    assert "did you mean `mixer.level`?" in wrong.message
    assert (wrong.range.start.line, wrong.range.start.character, wrong.range.end.character) == (7, 11, 22)
    assert [one.code for one in await editor.write("recipe: one\nsteps: [")] != []
    assert await editor.write(RECIPE) == []


async def test_the_cell_its_plant_and_tests_are_checked_too(editor: Client) -> None:
    folder = editor.path.parent
    cell = (folder / "cell.yaml").read_text()
    assert any(
        one.code == "unknown-driver" for one in await editor.open(cell.replace("s7", "s8"), folder / "cell.yaml")
    )
    assert await editor.open("recipe: none\ntests: {}\n", folder / "one.test.yaml")
    assert await editor.open("tanks: 3\n", folder / "plant.yaml")


async def test_completion(editor: Client) -> None:
    await editor.open(RECIPE)
    assert {"until", "during", "within", "ask"} <= await editor.offers(f"{RECIPE}  - w", "  - w")
    assert {"recipe", "steps", "uses"} <= await editor.offers(f"{RECIPE}p", "s\np")
    tags = await editor.offers(RECIPE.replace(">= volume", ">= "), "until: mixer.level >= ")
    assert {"mixer.level", "volume", "clamp"} <= tags
    outputs = await editor.offers(f"{RECIPE}  - set: {{mi", "set: {mi")
    assert "mixer.agitator" in outputs and "mixer.level" not in outputs
    assert "robot.pick" in await editor.offers(f"{RECIPE}  - do: ", "- do: ")
    assert {"L", "mL", "degC"} & await editor.offers(RECIPE.replace("unit: L", "unit: "), "unit: ")
    assert {"hold", "abort"} <= await editor.offers(f"{RECIPE}    on_timeout: ", "on_timeout: ")
    assert "s" in await editor.offers(RECIPE.replace("60 s", "60 "), "within: 60 ")
    assert {"mixer", "robot"} <= await editor.offers(RECIPE.replace("[mixer]", "[mi"), "uses: [mi")


async def test_hover_and_definition(editor: Client) -> None:
    await editor.open(RECIPE)

    async def hover(mark: str) -> str:
        found = await editor.client.text_document_hover_async(lsp.HoverParams(*editor.at(RECIPE, mark)))
        assert found is not None and isinstance(found.contents, lsp.MarkupContent)
        return found.contents.value

    assert "float32 in L, 0 to 100, read from DB1.DBD0 of mixer (s7)" in await hover("mixer.lev")
    assert "longest" in await hover("    with")
    assert "default: 20" in await hover(">= vol")

    async def definition(mark: str) -> tuple[str, int]:
        found = await editor.client.text_document_definition_async(lsp.DefinitionParams(*editor.at(RECIPE, mark)))
        assert isinstance(found, lsp.Location)
        return found.uri.rpartition("/")[2], found.range.start.line

    name, line = await definition("mixer.lev")
    assert name == "cell.yaml" and "level:" in (editor.path.parent / name).read_text().splitlines()[line]
    assert await definition(">= vol") == ("one.yaml", 3)
