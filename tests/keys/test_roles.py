"""Who may do what: each action of the admin, tried over HTTP by each role."""

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group
from django.core.management import call_command
from django.utils import timezone

from billing.models import BillingPeriod, Contract, Invoice, LedgerEntry, ReconciliationRun
from deeds import storage
from deeds.models import Deed
from keys import audit, roles
from keys.models import ApiKey, AuditEntry, Partner
from tests.api import Api
from tests.billing import books
from tests.conftest import MainApi
from tests.staff import PASSWORD, hire, log_in
from webhooks.models import Delivery, Endpoint, Event, InboundEvent, Source

pytestmark = pytest.mark.usefixtures("quick_passwords")
EVERYBODY = READERS = frozenset(roles.ROLES)
BOOKS = frozenset({"finance", "owner"})
KEYS = frozenset({"key_staff", "owner"})
OWNER = frozenset({"owner"})


@dataclass(frozen=True)
class Action:
    """`path` is filled with what `world` made. A form makes it a POST."""

    path: str
    allowed: frozenset[str]
    form: dict[str, Any] | None = None


KEY_FORM = {
    "name": "Made",
    "scopes": ["deed:read"],
    "rate_limit_per_minute": "7",
    "rate_limit_burst": "7",
    "allowed_cidrs": "",
}
CONTRACT_FORM = {
    "partner": "{suspended}",
    "model": "per_deed",
    "currency": "USD",
    "starts_on": "{today}",
    "anchor_day": "1",
    "payment_terms_days": "30",
    "grace_days": "14",
    "base_fee": "0",
    "quota_mode": "hard",
    "prices-TOTAL_FORMS": "1",
    "prices-INITIAL_FORMS": "0",
    "prices-0-item": "grant",
    "prices-0-after_quantity": "0",
    "prices-0-unit_price": "1",
}
CORRECTION = {
    "partner": "{partner}",
    "amount": "-5",
    "reason": "tested",
    "token": "01a20fa8-6229-704b-9fcf-10547513ce17",
}
ACTIONS = {
    "read keys": Action("keys/apikey/", EVERYBODY),
    "read a key": Action("keys/apikey/{key}/change/", EVERYBODY),
    "read partners": Action("keys/partner/", EVERYBODY),
    "read a partner": Action("keys/partner/{partner}/change/", EVERYBODY),
    "read the audit trail": Action("keys/auditentry/", EVERYBODY),
    "read an entry": Action("keys/auditentry/{entry}/change/", EVERYBODY),
    "read deeds": Action("deeds/deed/", EVERYBODY),
    "read a deed": Action("deeds/deed/{deed}/change/", EVERYBODY),
    "issue a key": Action(
        "keys/apikey/add/", KEYS, {**KEY_FORM, "partner": "{partner}", "environment": "live"}
    ),
    "edit a key": Action("keys/apikey/{key}/change/", KEYS, {**KEY_FORM, "reason": "tested"}),
    "rotate a key": Action("keys/apikey/{key}/rotate/", KEYS, {"reason": "tested", "overlap": "3600"}),
    "revoke a key": Action("keys/apikey/{key}/revoke/", KEYS, {"reason": "tested"}),
    "make a partner": Action("keys/partner/add/", KEYS, {"name": "Made"}),
    "edit a partner": Action("keys/partner/{partner}/change/", KEYS, {"name": "Renamed", "reason": "tested"}),
    "suspend a partner": Action("keys/partner/{partner}/suspend/", KEYS, {"reason": "tested"}),
    "reactivate a partner": Action("keys/partner/{suspended}/reactivate/", KEYS, {"reason": "tested"}),
    "hold a deed": Action("deeds/deed/{deed}/hold/", KEYS, {"reason": "tested"}),
    "end the hold of a deed": Action("deeds/deed/{deed}/release/", KEYS, {"reason": "tested"}),
    "queue a deed again": Action("deeds/deed/{deed}/requeue/", KEYS, {"reason": "tested"}),
    "cancel a deed": Action("deeds/deed/{deed}/cancel/", KEYS, {"reason": "tested"}),
    "render a deed again": Action("deeds/deed/{lost}/render_again/", KEYS, {"reason": "tested"}),
    "export the audit trail": Action("keys/auditentry/export/", frozenset({"owner", "finance"}), {}),
    "read downloads": Action("deeds/deeddownload/", READERS),
    "read findings": Action("deeds/storagefinding/", READERS),
    "read analytics": Action("billing/analytics/", READERS),
    "read contracts": Action("billing/contract/", BOOKS),
    "read periods": Action("billing/billingperiod/", BOOKS),
    "read the ledger": Action("billing/ledgerentry/", BOOKS),
    "read invoices": Action("billing/invoice/", BOOKS),
    "preview the period": Action("billing/billingperiod/preview/", BOOKS),
    "read runs": Action("billing/reconciliationrun/", BOOKS),
    "read lanes": Action("billing/stripelane/", BOOKS),
    "read customers": Action("billing/stripecustomer/", BOOKS),
    "read contracts at Stripe": Action("billing/contractatstripe/", BOOKS),
    "read invoices at Stripe": Action("billing/stripeinvoice/", BOOKS),
    "read subscriptions": Action("billing/stripesubscription/", BOOKS),
    "read Stripe's events": Action("billing/stripeevent/", BOOKS),
    "agree on a contract": Action("billing/contract/add/", BOOKS, CONTRACT_FORM),
    "withdraw a contract": Action("billing/contract/{coming}/withdraw/", BOOKS, {"reason": "tested"}),
    "end a contract": Action(
        "billing/contract/{contract}/end/", BOOKS, {"reason": "tested", "last_day": "{today}"}
    ),
    "correct the ledger": Action("billing/ledgerentry/correct/", BOOKS, CORRECTION),
    "repair a variance": Action(
        "billing/ledgerentry/reconcile/repair/?variance=missing_charge:{uncharged}",
        BOOKS,
        {"reason": "tested"},
    ),
    "export the ledger": Action("billing/ledgerentry/export.csv", BOOKS),
    "export invoices": Action("billing/invoice/export.csv", BOOKS),
    "make an invoice final": Action("billing/invoice/{draft}/finalize/", BOOKS, {"reason": "tested"}),
    "mark an invoice as paid": Action(
        "billing/invoice/{unpaid}/mark_paid/", BOOKS, {"reference": "cheque 1", "reason": "tested"}
    ),
    "grant more": Action(
        "billing/billingperiod/{period}/grant/",
        BOOKS,
        {"deeds": "5", "requests": "0", "budget": "0", "reason": "tested"},
    ),
    "compare the books": Action("billing/reconciliationrun/compare_now/", BOOKS, {}),
    "repair the books": Action("billing/reconciliationrun/repair_now/", BOOKS, {"reason": "tested"}),
    "read sources": Action("webhooks/source/", READERS),
    "read a source": Action("webhooks/source/{source}/change/", READERS),
    "read endpoints": Action("webhooks/endpoint/", READERS),
    "read an endpoint": Action("webhooks/endpoint/{endpoint}/change/", READERS),
    "read deliveries": Action("webhooks/delivery/", READERS),
    "read a delivery": Action("webhooks/delivery/{delivery}/change/", READERS),
    "read inbound events": Action("webhooks/inboundevent/", READERS),
    "read an inbound event": Action("webhooks/inboundevent/{inbound}/change/", READERS),
    "replay in the shadow": Action("webhooks/inboundevent/{inbound}/shadow/", KEYS),
    "make a source": Action(
        "webhooks/source/add/", KEYS, {"system": "softpro", "partner": "{partner}", "enabled": "on"}
    ),
    "edit a source": Action("webhooks/source/{source}/change/", KEYS, {"reason": "tested"}),
    "rotate a source": Action("webhooks/source/{source}/rotate/", KEYS, {"reason": "tested"}),
    "disable a source": Action("webhooks/source/{source}/disable/", KEYS, {"reason": "tested"}),
    "enable a source": Action("webhooks/source/{source}/enable/", KEYS, {"reason": "tested"}),
    "send again": Action("webhooks/delivery/{delivery}/resend/", KEYS, {"reason": "tested"}),
    "make an endpoint": Action(
        "webhooks/endpoint/add/",
        KEYS,
        {"partner": "{partner}", "url": "https://93.184.216.34/", "event_types": ["*"]},
    ),
    "edit an endpoint": Action(
        "webhooks/endpoint/{endpoint}/edit/",
        KEYS,
        {"url": "https://93.184.216.34/", "event_types": ["deed.*"], "reason": "tested"},
    ),
    "rotate an endpoint": Action("webhooks/endpoint/{endpoint}/rotate_secret/", KEYS, {"reason": "tested"}),
    "test an endpoint": Action("webhooks/endpoint/{endpoint}/test/", KEYS, {}),
    "replay to an endpoint": Action(
        "webhooks/endpoint/{endpoint}/replay/", KEYS, {"since": "2026-01-01T00:00", "reason": "tested"}
    ),
    "disable an endpoint": Action("webhooks/endpoint/{endpoint}/disable/", KEYS, {"reason": "tested"}),
    "enable an endpoint": Action("webhooks/endpoint/{disabled}/enable/", KEYS, {"reason": "tested"}),
    "let an endpoint go": Action("webhooks/endpoint/{disabled}/remove/", KEYS, {"reason": "tested"}),
    "correct and replay": Action(
        "webhooks/inboundevent/{inbound}/correct/", KEYS, {"body": "[]", "reason": "tested"}
    ),
    "replay many": Action(
        "webhooks/inboundevent/replay_many/",
        KEYS,
        {"which": "{source} validation_error", "reason": "tested"},
    ),
    "read staff": Action("auth/user/", OWNER),
    "hire": Action(
        "auth/user/add/",
        OWNER,
        {"username": "made", "password1": "a long enough password", "password2": "a long enough password"},
    ),
    "give a role": Action(
        "auth/user/{user}/change/", OWNER, {"username": "clerk", "groups": "{group}", "reason": "tested"}
    ),
    "set a password": Action(
        "auth/user/{user}/password/",
        OWNER,
        {
            "password1": "a long enough password",
            "password2": "a long enough password",
            "reason": "tested",
        },
    ),
    "reset a second factor": Action("auth/user/{user}/reset_second_factor/", OWNER, {"reason": "tested"}),
    "deactivate staff": Action("auth/user/{user}/deactivate/", OWNER, {"reason": "tested"}),
    "activate staff": Action("auth/user/{user}/activate/", OWNER, {"reason": "tested"}),
    "delete a contract": Action("billing/contract/{contract}/delete/", frozenset(), {"post": "yes"}),
    "delete a source": Action("webhooks/source/{source}/delete/", frozenset(), {"post": "yes"}),
    "delete an endpoint": Action("webhooks/endpoint/{endpoint}/delete/", frozenset(), {"post": "yes"}),
    "delete a delivery": Action("webhooks/delivery/{delivery}/delete/", frozenset(), {"post": "yes"}),
    "delete an inbound event": Action(
        "webhooks/inboundevent/{inbound}/delete/", frozenset(), {"post": "yes"}
    ),
    "delete a key": Action("keys/apikey/{key}/delete/", frozenset(), {"post": "yes"}),
    "delete a partner": Action("keys/partner/{partner}/delete/", frozenset(), {"post": "yes"}),
    "delete an entry": Action("keys/auditentry/{entry}/delete/", frozenset(), {"post": "yes"}),
    "edit an entry": Action("keys/auditentry/{entry}/change/", frozenset(), {"actor": "nobody"}),
    "add an entry": Action("keys/auditentry/add/", frozenset(), {"actor": "nobody"}),
    "delete a deed": Action("deeds/deed/{deed}/delete/", frozenset(), {"post": "yes"}),
    "delete staff": Action("auth/user/{user}/delete/", frozenset(), {"post": "yes"}),
}


@pytest.fixture
def world(api: Api, order: Callable[..., dict[str, Any]], main_api: MainApi) -> dict[str, str]:
    deed = Deed.objects.get(pk=api.post("/v2/deeds", order(order_id="A-1")).json()["id"])
    Deed.objects.filter(pk=deed.pk).update(status="failed", failure_code="x")
    lost = Deed.objects.get(pk=api.post("/v2/deeds", order(order_id="A-2")).json()["id"])
    pdf = {"pdf_name": storage.name_of(lost), "pdf_sha256": "0" * 64, "pdf_bytes": 1, "pdf_pages": 1}
    Deed.objects.filter(pk=lost.pk).update(status="completed", completed_at=timezone.now(), **pdf)
    suspended = Partner.objects.create(name="Pacific Escrow", status="suspended")
    entry = audit.record(audit.Actor.command("test"), "partner.changed", api.partner)
    return {
        **_books(api.partner),
        **_webhooks(api.partner),
        "key": str(api.key.pk),
        "partner": str(api.partner.pk),
        "suspended": str(suspended.pk),
        "deed": str(deed.pk),
        "lost": str(lost.pk),
        "entry": str(entry.pk),
        "user": str(hire("clerk", "support").pk),
        "group": str(Group.objects.get(name=roles.TITLES["finance"]).pk),
    }


def _books(partner: Partner) -> dict[str, str]:
    today = timezone.now().date()
    contract = books.agree(partner, starts_on=today)
    coming = books.agree(partner, starts_on=today + dt.timedelta(days=9))
    charge = books.charge(partner)
    return {
        "today": str(today),
        "contract": str(contract.pk),
        "coming": str(coming.pk),
        "period": str(charge.period_id),
        "uncharged": str(books.uncharged(partner).pk),
        "draft": str(Invoice.objects.create(partner=partner, currency="USD", total=5, amount_due=5).pk),
        "unpaid": str(Invoice.objects.create(partner=partner, currency="USD", total=5, status="open").pk),
    }


def _webhooks(partner: Partner) -> dict[str, str]:
    """A source, two events of it that need attention, and a delivery that failed."""
    none, now = dt.timedelta(0), timezone.now()
    source = Source(system="qualia", partner=partner)
    source.give_secret("secret", now=now, overlap=none)
    source.save()
    # One to be replayed by itself, one with others.
    inbound, _ = (
        InboundEvent.objects.create(
            source=source,
            identity=identity,
            body=b"{}",
            headers={},
            request_id="r",
            status="needs_attention",
            reason_code="validation_error",
            settled_at=now,
        )
        for identity in "12"
    )
    endpoint = Endpoint(
        partner=partner, livemode=True, url="https://a.example.com/", event_types=["*"], last_success_at=now
    )
    endpoint.give_secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", now=now, overlap=none)
    endpoint.save()
    disabled = Endpoint(
        partner=partner, livemode=True, url="https://b.example.com/", event_types=["*"], enabled=False
    )
    disabled.disabled_at, disabled.disabled_reason, disabled.secrets = now, "by_staff", endpoint.secrets
    disabled.save()
    event = Event.objects.create(type="key.revoked", partner=partner, livemode=True, data={})
    delivery = Delivery.objects.create(
        endpoint=endpoint, event=event, partner=partner, livemode=True, status="failed", settled_at=now
    )
    rows = {"source": source, "inbound": inbound, "endpoint": endpoint, "delivery": delivery}
    rows["disabled"] = disabled
    return {name: str(row.pk) for name, row in rows.items()}


def everything() -> Any:
    """All that an action could change."""
    users = get_user_model().objects.order_by("pk", "groups__name", "authenticator__id")
    return [
        list(ApiKey.objects.order_by("pk").values()),
        list(Partner.objects.order_by("pk").values()),
        list(Deed.objects.values("pk", "status", "held_at")),
        list(Contract.objects.values()),
        list(LedgerEntry.objects.values("pk", "amount")),
        list(BillingPeriod.objects.values()),
        list(Invoice.objects.order_by("pk").values("pk", "status")),
        ReconciliationRun.objects.count(),
        list(Source.objects.values()),
        list(Endpoint.objects.order_by("pk").values()),
        list(Delivery.objects.values()),
        list(InboundEvent.objects.values("pk", "status", "corrected_body")),
        AuditEntry.objects.count(),
        list(users.values_list("pk", "password", "is_active", "groups__name", "authenticator__id")),
    ]


@pytest.mark.parametrize("role", [*roles.ROLES, "none"])
def test_each_role_does_its_work_and_no_other(world: dict[str, str], role: str) -> None:
    client = log_in(hire("me", *([] if role == "none" else [role])))
    wrong = []
    before = everything()
    # What is refused first, so that nothing that is allowed has changed what the others are tried on.
    for name, action in sorted(ACTIONS.items(), key=lambda item: role in item[1].allowed):
        path = "/admin/" + action.path.format(**world)
        form = {
            field: value.format(**world) if isinstance(value, str) else value
            for field, value in (action.form or {}).items()
        }
        answer = client.get(path) if action.form is None else client.post(path, form)
        if answer.streaming:
            answer.getvalue()
        earlier, before = before, everything()
        if role not in action.allowed:
            if answer.status_code != 403 or before != earlier:
                wrong.append(f"{role} may not {name}: {answer.status_code}")
        elif action.form is None:
            if answer.status_code != 200:
                wrong.append(f"{role} may {name}: {answer.status_code}")
        elif answer.status_code not in {200, 302} or before == earlier:
            wrong.append(f"{role} may {name}: {answer.status_code}")
    assert wrong == []


def test_the_page_offers_only_what_the_role_may(world: dict[str, str]) -> None:
    path = f"/admin/keys/apikey/{world['key']}/"
    page = log_in(hire("reader", "support")).get(f"{path}change/").content.decode()
    assert f"{path}revoke/" not in page
    assert f"{path}rotate/" not in page
    page = log_in(hire("keeper", "key_staff")).get(f"{path}change/").content.decode()
    assert f"{path}revoke/" in page
    assert f"{path}rotate/" in page


def test_roles_are_exactly_as_the_table_says_after_each_migrate(db: None) -> None:
    support = Group.objects.get(name="Support (read only)")
    wanted = set(support.permissions.values_list("codename", flat=True))
    assert wanted == {
        roles.permission(label, action).partition(".")[2]
        for label, actions in roles.ROLES["support"].items()
        for action in actions
    }
    assert {codename.partition("_")[0] for codename in wanted} == {"view"}
    owner = Group.objects.get(name="Owner")
    support.permissions.set(owner.permissions.all())
    owner.delete()
    call_command("migrate", verbosity=0)
    assert set(support.permissions.values_list("codename", flat=True)) == wanted
    assert Group.objects.get(name="Owner").permissions.filter(codename="revoke_apikey").exists()


def test_a_new_role_holds_on_the_next_request_and_is_audited(db: None) -> None:
    owner, clerk = log_in(hire("boss", "owner")), hire("clerk", "support")
    his = log_in(clerk)
    assert his.get("/admin/keys/partner/add/").status_code == 403
    group = Group.objects.get(name="Key staff")
    form = {"username": "clerk", "groups": [str(group.pk)]}
    assert owner.post(f"/admin/auth/user/{clerk.pk}/change/", form).status_code == 200
    assert his.get("/admin/keys/partner/add/").status_code == 403, "without a reason nothing is done"
    form["reason"] = "from Monday on"
    assert owner.post(f"/admin/auth/user/{clerk.pk}/change/", form).status_code == 302
    assert his.get("/admin/keys/partner/add/").status_code == 200
    entry = AuditEntry.objects.get(action="staff.changed")
    assert (entry.actor, entry.target_id, entry.reason) == ("boss", str(clerk.pk), "from Monday on")
    assert (entry.before["roles"], entry.after["roles"]) == (["Support (read only)"], ["Key staff"])


def test_nobody_makes_a_superuser_or_changes_one(db: None) -> None:
    owner, breakglass, clerk = hire("boss", "owner"), hire("root", is_superuser=True), hire("clerk")
    client = log_in(owner)
    form = {"username": "clerk", "is_superuser": "on", "user_permissions": "1", "reason": "x"}
    assert client.post(f"/admin/auth/user/{clerk.pk}/change/", form).status_code == 302
    clerk.refresh_from_db()
    assert not clerk.is_superuser
    assert not clerk.user_permissions.exists()
    before = everything()
    for path, posted in (
        ("change/", {"username": "root", "reason": "x"}),
        (
            "password/",
            {"password1": "a long enough password", "password2": "a long enough password", "reason": "x"},
        ),
        ("reset_second_factor/", {"reason": "x"}),
        ("deactivate/", {"reason": "x"}),
    ):
        assert client.post(f"/admin/auth/user/{breakglass.pk}/{path}", posted).status_code == 403
    assert everything() == before


def test_nobody_gives_themselves_a_role_or_locks_themselves_out(db: None) -> None:
    owner = hire("boss", "owner")
    client, path = log_in(owner), f"/admin/auth/user/{owner.pk}/"
    form = {"username": "boss", "groups": [], "reason": "x"}
    assert client.post(f"{path}change/", form).status_code == 302
    assert f"{path}deactivate/" not in client.get(f"{path}change/").content.decode()
    assert client.post(f"{path}deactivate/", {"reason": "tired"}).status_code == 403
    owner.refresh_from_db()
    assert owner.is_active
    assert [group.name for group in owner.groups.all()] == ["Owner"]


def test_a_password_is_set_for_another_with_a_reason(db: None) -> None:
    owner, clerk = log_in(hire("boss", "owner")), hire("clerk", "support")
    url = f"/admin/auth/user/{clerk.pk}/password/"
    form = {"password1": "a long enough password", "password2": "a long enough password"}
    assert 'name="reason"' in owner.get(url).content.decode()
    for reason in ("", " "):
        assert owner.post(url, {**form, "reason": reason}).status_code == 200
    clerk.refresh_from_db()
    assert clerk.check_password(PASSWORD)
    assert owner.post(url, {**form, "reason": "forgotten"}).status_code == 302
    clerk.refresh_from_db()
    assert clerk.check_password("a long enough password")
    entry = AuditEntry.objects.get(action="staff.password_set")
    assert (entry.actor, entry.target_id, entry.reason) == ("boss", str(clerk.pk), "forgotten")


def test_a_reset_second_factor_ends_what_it_verified(db: None) -> None:
    owner, clerk = log_in(hire("boss", "owner")), hire("clerk", "support")
    his = log_in(clerk)
    url = f"/admin/auth/user/{clerk.pk}/reset_second_factor/"
    assert "Reset second factor" in owner.get(url).content.decode()
    assert owner.post(url, {"reason": " "}).status_code == 200
    assert his.get("/admin/keys/partner/").status_code == 200
    assert owner.post(url, {"reason": "phone lost"}).status_code == 302
    assert his.get("/admin/keys/partner/").status_code == 302
    assert his.get("/admin/enrol/").status_code == 302, "the old session must not enrol"
    entry = AuditEntry.objects.get(action="staff.second_factor_reset")
    assert (entry.actor, entry.reason) == ("boss", "phone lost")


def test_who_is_let_go_is_out_at_once(db: None) -> None:
    owner, clerk = log_in(hire("boss", "owner")), hire("clerk", "support")
    his, url = log_in(clerk), f"/admin/auth/user/{clerk.pk}/"
    form = {"username": "clerk", "is_active": "", "groups": [str(clerk.groups.get().pk)], "reason": "x"}
    assert owner.post(f"{url}change/", form).status_code == 302
    assert "logged out everywhere" in owner.get(f"{url}deactivate/").content.decode()
    assert owner.post(f"{url}deactivate/", {"reason": " "}).status_code == 200
    assert his.get("/admin/keys/partner/").status_code == 200, "without a reason nothing is done"
    assert owner.post(f"{url}deactivate/", {"reason": "left on Friday"}).status_code == 302
    assert his.get("/admin/keys/partner/").status_code == 302
    assert f"{url}deactivate/" not in owner.get(f"{url}change/").content.decode()
    owner.post(f"{url}activate/", {"reason": "back on Monday"})
    assert log_in(clerk).get("/admin/keys/partner/").status_code == 200
    acts = AuditEntry.objects.filter(target_id=str(clerk.pk), action__endswith="activated").order_by("id")
    assert [(entry.actor, entry.action, entry.reason) for entry in acts] == [
        ("boss", "staff.deactivated", "left on Friday"),
        ("boss", "staff.activated", "back on Monday"),
    ]


@pytest.mark.parametrize(
    ("held", "needed", "expected"),
    [
        ("support", "support", True),
        ("finance", "support", True),
        ("finance", "key_staff", False),
        ("key_staff", "finance", False),
        ("owner", "finance", True),
        ("key_staff", "owner", False),
        ("nobody", "support", False),
    ],
)
def test_a_role_includes_others(held: str, needed: str, expected: bool) -> None:
    assert roles.includes(held, needed) is expected
    if expected:
        for label, actions in roles.ROLES[needed].items():
            assert actions <= roles.ROLES[held][label]
