"""From an order to the body that the Main API renders. Pure: the same order gives the same body."""

from typing import Any

from deeds import counties, order
from deeds.catalog import DeedType
from deeds.fields import cents


def main_api_body(deed_type: DeedType, facts: order.Order) -> dict[str, Any]:
    """Flat JSON in the Main API's own names. Members without a value are left out."""
    recording = facts.recording or order.Recording()
    given = facts.property
    body: dict[str, Any] = {
        "requested_by": recording.requested_by,
        "title_company": recording.title_company,
        "escrow_no": recording.escrow_no,
        "title_order_no": recording.title_order_no,
        "return_to": recording.return_to and _present(recording.return_to.model_dump()),
        "apn": given.apn.strip(),
        "county": counties.canonical(given.county),
        "legal_description": given.legal_description.strip(),
        "property_address": given.address,
        "grantors_text": _parties(facts.grantors),
        "grantees_text": _parties(facts.grantees),
        "execution_date": facts.execution_date,
    }
    match deed_type.slug:
        case "grant":
            body |= {"vesting": facts.vesting, "dtt": _dtt(facts), **_transfer_value(facts)}
        case "quitclaim":
            body |= {"vesting": facts.vesting, "dtt": _dtt(facts)}
        case "warranty":
            body |= {"vesting": facts.vesting, "dtt": _dtt(facts), "covenants": facts.covenants}
        case "interspousal":
            body["dtt_exempt_reason"] = facts.transfer_tax and facts.transfer_tax.exemption_reason
        case "tax":
            body |= {"vesting": facts.vesting, "tax_sale_ref": facts.tax_sale_ref}
        case slug:
            # Without its own facts a deed would be rendered blank, and called a success.
            message = f"no mapping for deed type {slug!r}"
            raise NotImplementedError(message)
    return _present(body)


def _parties(parties: list[order.Party]) -> str:
    """The Main API splits on ";" and draws a signature line for each."""
    return "; ".join(party.name.strip() for party in parties)


def _dtt(facts: order.Order) -> dict[str, Any] | None:
    tax = facts.transfer_tax
    if tax is None:
        return None
    declared = {
        # The Main API answers 400 to a declaration without an amount, an exempt one included.
        "amount": "0.00" if tax.exempt and tax.amount is None else f"{cents(tax.amount or '0')}",
        "basis": tax.basis,
        "area_type": tax.area_type,
        "city_name": tax.city_name,
        "is_exempt": tax.exempt,
        "exemption_reason": tax.exemption_reason,
    }
    if tax.exempt and tax.area_type == "city" and tax.city_name is None:
        # A city without its name is refused, and on an exempt transfer neither has to be stated.
        del declared["area_type"]
    return _present(declared)


def _transfer_value(facts: order.Order) -> dict[str, Any]:
    """A JSON number; whole dollars as an integer, so that no cent is invented."""
    tax = facts.transfer_tax
    if tax is None or tax.transfer_value is None:
        return {}
    value = cents(tax.transfer_value)
    whole = value.to_integral_value()
    return {"transfer_value": int(whole) if whole == value else float(value)}


def _present(body: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in body.items() if value is not None}
