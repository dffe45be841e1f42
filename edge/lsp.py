"""`edge lsp`: a language server over standard input and output (Language Server Protocol 3.17), for any editor.

All that it knows of the language is in `edge.language.editor`.
"""

from pathlib import Path
from urllib.parse import unquote, urlsplit

from lsprotocol import types as lsp
from pygls.lsp.server import LanguageServer

from edge import __version__
from edge.language.editor import Editor, Kind
from edge.language.source import Place, Problem

_KINDS: dict[Kind, lsp.CompletionItemKind] = {
    "key": lsp.CompletionItemKind.Property,
    "tag": lsp.CompletionItemKind.Variable,
    "phase": lsp.CompletionItemKind.Method,
    "unit": lsp.CompletionItemKind.Module,
    "measure": lsp.CompletionItemKind.Unit,
    "variable": lsp.CompletionItemKind.Variable,
    "function": lsp.CompletionItemKind.Function,
    "value": lsp.CompletionItemKind.EnumMember,
}


def run() -> int:
    """Serves one editor until it ends."""
    server(Editor()).start_io()
    return 0


def server(editor: Editor) -> LanguageServer:
    """The server of one editor."""
    serving = LanguageServer("edge", __version__, text_document_sync_kind=lsp.TextDocumentSyncKind.Full)

    def tell() -> None:
        """The problems of every open file: what is written in a cell changes what is wrong in its recipes."""
        for file, text in editor.texts.items():
            lines = text.split("\n")
            found = [_diagnostic(one, lines) for one in editor.problems(Path(file))]
            told = lsp.PublishDiagnosticsParams(uri=Path(file).as_uri(), diagnostics=found)
            serving.text_document_publish_diagnostics(told)

    @serving.feature(lsp.TEXT_DOCUMENT_DID_OPEN)
    def _(params: lsp.DidOpenTextDocumentParams) -> None:
        editor.texts[str(_path(params.text_document.uri))] = params.text_document.text
        tell()

    @serving.feature(lsp.TEXT_DOCUMENT_DID_CHANGE)
    def _(params: lsp.DidChangeTextDocumentParams) -> None:
        editor.texts[str(_path(params.text_document.uri))] = params.content_changes[-1].text
        tell()

    @serving.feature(lsp.TEXT_DOCUMENT_DID_CLOSE)
    def _(params: lsp.DidCloseTextDocumentParams) -> None:
        editor.texts.pop(str(_path(params.text_document.uri)), None)
        gone = lsp.PublishDiagnosticsParams(uri=params.text_document.uri, diagnostics=[])
        serving.text_document_publish_diagnostics(gone)

    @serving.feature(lsp.TEXT_DOCUMENT_COMPLETION, lsp.CompletionOptions(trigger_characters=[".", " ", "{"]))
    def _(params: lsp.CompletionParams) -> list[lsp.CompletionItem]:
        offers = editor.offers(*_where(editor, params))
        return [
            lsp.CompletionItem(label=one.word, kind=_KINDS[one.kind], detail=one.about or None)
            for one in {one.word: one for one in offers}.values()
        ]

    @serving.feature(lsp.TEXT_DOCUMENT_HOVER)
    def _(params: lsp.HoverParams) -> lsp.Hover | None:
        words = editor.hover(*_where(editor, params))
        return lsp.Hover(lsp.MarkupContent(lsp.MarkupKind.Markdown, words)) if words else None

    @serving.feature(lsp.TEXT_DOCUMENT_DEFINITION)
    def _(params: lsp.DefinitionParams) -> lsp.Location | None:
        found = editor.definition(*_where(editor, params))
        return None if found is None else lsp.Location(Path(found.file).as_uri(), _range(found, None))

    return serving


def _path(uri: str) -> Path:
    return Path(unquote(urlsplit(uri).path))


def _where(
    editor: Editor, params: lsp.CompletionParams | lsp.HoverParams | lsp.DefinitionParams
) -> tuple[Path, int, int]:
    """File, line and column (in characters, from 0) of a position, which counts UTF-16 code units."""
    path, position = _path(params.text_document.uri), params.position
    lines = editor.texts.get(str(path), "").split("\n")
    text = lines[position.line] if position.line < len(lines) else ""
    column = len(text.encode("utf-16-le")[: 2 * position.character].decode("utf-16-le", errors="ignore"))
    return path, position.line, column


def _diagnostic(problem: Problem, lines: list[str]) -> lsp.Diagnostic:
    place = Place(problem.file, problem.line, problem.column, problem.length)
    severity = lsp.DiagnosticSeverity.Error if problem.severity == "error" else lsp.DiagnosticSeverity.Warning
    text = f"{problem.message}\nhint: {problem.hint}" if problem.hint else problem.message
    return lsp.Diagnostic(_range(place, lines), text, severity=severity, code=problem.code, source="edge")


def _range(place: Place, lines: list[str] | None) -> lsp.Range:
    """A place in UTF-16 code units; `lines` None: of a file whose text is not at hand, where keys are plain letters."""
    text = lines[place.line - 1] if lines is not None and place.line <= len(lines) else ""
    ends = (place.column - 1, place.column - 1 + place.length)
    start, end = (len(text[:at].encode("utf-16-le")) // 2 if text else at for at in ends)
    return lsp.Range(lsp.Position(place.line - 1, start), lsp.Position(place.line - 1, max(end, start)))
