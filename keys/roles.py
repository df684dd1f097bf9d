"""Who of the staff may do what: one table, from which the admin's permissions follow. Tokens of the admin
API carry the same roles; what each may call there stands on its views (`includes` says who may do whose).

To add a model of another app, add a line with its label and the actions: `view`, `add`, `change` and
`delete` are Django's own, any other (`revoke`, `export`, …) becomes a permission `<action>_<model>`.
Labels of models that don't exist are passed over. `sync` runs after each migrate and sets each role's
permissions to exactly what stands here.
"""

from typing import Any, Final

from django.apps import apps
from django.contrib.auth.models import Group, Permission
from django.contrib.contenttypes.models import ContentType
from django.db import models, transaction

Actions = dict[str, frozenset[str]]


def _may(*lines: tuple[str, str]) -> Actions:
    return {label: frozenset(actions.split()) for label, actions in lines}


_READ: Final = _may(
    ("keys.partner", "view"),
    ("keys.apikey", "view"),
    ("keys.auditentry", "view"),
    ("deeds.deed", "view"),
    ("deeds.deeddownload", "view"),
    ("deeds.storagefinding", "view"),
    ("billing.analytics", "view"),
    ("webhooks.source", "view"),
    ("webhooks.endpoint", "view"),
    ("webhooks.delivery", "view"),
    ("webhooks.inboundevent", "view"),
)
# Sources and endpoints, a message sent again, an inbound event corrected and replayed.
_WEBHOOKS: Final = _may(
    ("webhooks.source", "view add change"),
    ("webhooks.endpoint", "view add change"),
    ("webhooks.delivery", "view change"),
    ("webhooks.inboundevent", "view change"),
)
_BOOKS: Final = _may(
    ("billing.contract", "view add change provision"),
    ("billing.billingperiod", "view grant"),
    ("billing.ledgerentry", "view adjust export"),
    ("billing.invoice", "view export finalize mark_paid"),
    ("billing.price", "view add"),
    ("billing.reconciliationrun", "view run"),
    ("billing.stripeevent", "view"),
    ("billing.stripelane", "view"),
    ("billing.stripecustomer", "view"),
    ("billing.stripeinvoice", "view"),
    ("billing.stripesubscription", "view"),
    ("billing.contractatstripe", "view"),
)

# Role → model → actions. The names are what a token's claim says.
ROLES: Final[dict[str, Actions]] = {
    "support": _READ,
    "key_staff": {
        **_READ,
        **_WEBHOOKS,
        **_may(
            ("keys.partner", "view add change suspend"),
            ("keys.apikey", "view add change revoke rotate"),
            ("deeds.deed", "view change"),
        ),
    },
    "finance": {**_READ, **_BOOKS, **_may(("keys.auditentry", "view export"))},
    "owner": {
        **_READ,
        **_BOOKS,
        **_WEBHOOKS,
        **_may(
            ("keys.partner", "view add change suspend"),
            ("keys.apikey", "view add change revoke rotate"),
            ("keys.auditentry", "view export"),
            ("deeds.deed", "view change"),
            ("auth.user", "view add change reset_second_factor"),
        ),
    },
}
# What staff read.
TITLES: Final = {
    "support": "Support (read only)",
    "key_staff": "Key staff",
    "finance": "Finance",
    "owner": "Owner",
}
# What a token's role claim may say, and what it means here. The Main API's administrators are owners.
OF_CLAIM: Final = {**{name: name for name in ROLES}, "admin": "owner"}


def includes(held: str, needed: str) -> bool:
    """Whether who holds one role may do what the other is needed for: all may read, the owner may all."""
    return held in ROLES and (held in {needed, "owner"} or needed == "support")


def permission(label: str, action: str) -> str:
    """The name that Django's `has_perm` takes."""
    app, model = label.split(".")
    return f"{app}.{action}_{model}"


def sync(**_: Any) -> None:
    """Makes the roles and their permissions, and takes away what the table does not say."""
    ContentType.objects.clear_cache()
    with transaction.atomic():
        permissions = _permissions()
        for name, actions in ROLES.items():
            role, _is_new = Group.objects.get_or_create(name=TITLES[name])
            wanted = {
                permissions[label, action].pk
                for label, some in actions.items()
                for action in some
                if (label, action) in permissions
            }
            if wanted != set(role.permissions.values_list("pk", flat=True)):
                role.permissions.set(wanted)


def _permissions() -> dict[tuple[str, str], Permission]:
    """By label and action, all that the table speaks of and that exists; made where missing."""
    wanted = {
        (label, action) for actions in ROLES.values() for label, some in actions.items() for action in some
    }
    found: dict[tuple[str, str], Permission] = {}
    for label in sorted({label for label, _ in wanted}):
        model = _model(label)
        if model is None:
            continue
        # A proxy has permissions of its own, as Django makes them.
        kind = ContentType.objects.get_for_model(model, for_concrete_model=False)
        known = {one.codename: one for one in Permission.objects.filter(content_type=kind)}
        for action in sorted(action for other, action in wanted if other == label):
            codename = permission(label, action).partition(".")[2]
            if codename not in known:
                title = f"Can {action.replace('_', ' ')} {model._meta.verbose_name}"  # noqa: SLF001 - Django's documented name
                known[codename] = Permission.objects.create(content_type=kind, codename=codename, name=title)
            found[label, action] = known[codename]
    return found


def _model(label: str) -> type[models.Model] | None:
    try:
        return apps.get_model(label)
    except LookupError:
        return None
