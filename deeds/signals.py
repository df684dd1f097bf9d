"""News of deeds, sent inside the transaction that makes it true.

A receiver writes its own rows there, so that what a deed's end entails happens with it or not at all;
a receiver that raises undoes the end itself. `deed_settled` carries `deed`, as it is in the database.
"""

from django.dispatch import Signal

deed_settled = Signal()
