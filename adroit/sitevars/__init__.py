"""The dynamic value ``adroit_model_versions``, for services that route requests by it.

    from adroit.sitevars import Sitevar

    live = Sitevar("s3://nextdoor-adroit/sitevars/adroit_model_versions.json")
    flavor = live.flavor("fraud", key=user_id)

The standard library is all it needs; boto3 is imported only where the address is AWS's.
``document`` is the format, which the release pipeline shares; ``split`` says which flavor a
request gets; ``sources`` reads; ``reader`` keeps the last good value.
"""

from __future__ import annotations

from adroit.sitevars.document import Pointer
from adroit.sitevars.reader import Sitevar, SitevarError

__all__ = ["Pointer", "Sitevar", "SitevarError"]
