"""Which facts the Main API looks at before it renders: types and dates always, the rest for a grant only."""

import datetime as dt
import re
from typing import Any, Final

PATHS: Final = {
    "/api/generate/grant-deed-ca": "GRANT DEED",
    "/api/generate/quitclaim-deed-ca": "QUITCLAIM DEED",
    "/api/generate/interspousal-transfer-ca": "INTERSPOUSAL TRANSFER DEED",
    "/api/generate/warranty-deed-ca": "WARRANTY DEED",
    "/api/generate/tax-deed-ca": "TAX DEED",
}
_TEXTS: Final = (
    "requested_by",
    "title_company",
    "escrow_no",
    "title_order_no",
    "apn",
    "county",
    "legal_description",
    "property_address",
    "grantors_text",
    "grantees_text",
    "vesting",
    "dtt_exempt_reason",
    "covenants",
    "tax_sale_ref",
    "execution_date",
    "recorder_profile",
)
_OBJECTS: Final = ("return_to", "dtt", "page")
_NEEDED_BY_GRANT: Final = (
    ("grantors_text", "Grantor information is required"),
    ("grantees_text", "Grantee information is required"),
    ("legal_description", "Legal description is required"),
    ("county", "County is required"),
    ("apn", "APN (Assessor's Parcel Number) is recommended"),
)
_DATE: Final = re.compile(r"\d{4}-\d{2}-\d{2}")

Detail = dict[str, Any]


def wrong_types(body: Any) -> list[Detail]:
    """What a 422 lists: `[{"loc", "msg", "type"}]`; empty when all types are right."""
    if not isinstance(body, dict):
        return [_detail([], "Input should be a valid dictionary", "dict_type")]
    wrong = [
        _detail([name], "Input should be a valid string", "string_type")
        for name in _TEXTS
        if not isinstance(body.get(name), str | None)
    ]
    wrong += [
        _detail([name], "Input should be a valid dictionary", "dict_type")
        for name in _OBJECTS
        if not isinstance(body.get(name), dict | None)
    ]
    value = body.get("transfer_value")
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
        wrong.append(_detail(["transfer_value"], "Input should be a valid number", "float_type"))
    date = body.get("execution_date")
    if isinstance(date, str) and not _is_date(date):
        wrong.append(
            _detail(["execution_date"], "Input should be a valid date", "date_from_datetime_parsing")
        )
    return wrong


def refusals(title: str, body: dict[str, Any]) -> list[str]:
    """What a 400 lists; empty for what is rendered, with blanks where facts are missing."""
    reasons = []
    if title == "GRANT DEED":
        reasons = [reason for name, reason in _NEEDED_BY_GRANT if not body.get(name)]
    dtt = body.get("dtt")
    if dtt is not None:
        if dtt.get("amount") in {None, ""}:
            reasons.append("Documentary transfer tax amount is required")
        if dtt.get("area_type") == "city" and not dtt.get("city_name"):
            reasons.append("City name is required when the property is in a city")
    return reasons


def _is_date(text: str) -> bool:
    try:
        dt.date.fromisoformat(text)
    except ValueError:
        return False
    return _DATE.fullmatch(text) is not None


def _detail(location: list[str], message: str, kind: str) -> Detail:
    return {"loc": ["body", *location], "msg": message, "type": kind}
