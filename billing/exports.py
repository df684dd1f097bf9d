"""Tables for a spreadsheet, as CSV that is streamed or as XLSX that is written row by row."""

import csv
import datetime as dt
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from typing import Any, Final

from django.http import FileResponse, HttpResponseBase, StreamingHttpResponse

from partner_api.http.spreadsheets import harmless

XLSX: Final = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"


def respond(name: str, form: str, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> HttpResponseBase:
    """A download named after `name`; `form` is csv or xlsx."""
    return _xlsx(name, header, rows) if form == "xlsx" else _csv(name, header, rows)


class _Echo:
    """A file whose write gives back what it was given."""

    def write(self, value: str) -> str:
        return value


def _csv(name: str, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> HttpResponseBase:
    writer = csv.writer(_Echo())

    def lines() -> Iterator[str]:
        yield writer.writerow(header)
        for row in rows:
            yield writer.writerow([_cell(value) for value in row])

    return StreamingHttpResponse(
        lines(),
        content_type="text/csv; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="{name}.csv"', "Cache-Control": "no-store"},
    )


def _xlsx(name: str, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> HttpResponseBase:
    from openpyxl import Workbook  # noqa: PLC0415 - slow to load, and few ask for it

    book = Workbook(write_only=True)
    sheet = book.create_sheet(name[:31])
    sheet.append(list(header))
    for row in rows:
        sheet.append([_cell(value) for value in row])
    file = tempfile.TemporaryFile()  # noqa: SIM115 - the answer closes it
    book.save(file)
    file.seek(0)
    answer = FileResponse(file, as_attachment=True, filename=f"{name}.xlsx", content_type=XLSX)
    answer["Cache-Control"] = "no-store"
    return answer


def _cell(value: Any) -> Any:
    if value is None or isinstance(value, int | Decimal):
        return value
    if isinstance(value, dt.datetime):
        return value.astimezone(dt.UTC).strftime("%Y-%m-%d %H:%M:%S")
    return harmless(str(value))
