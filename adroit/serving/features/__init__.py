"""The features of requests: a share of them sent to Datadog, and all held against X_test.

``feature_log`` sends, by ``dogstatsd``; ``reference`` is what X_test was like, ``drift_window`` how
far the last hour's requests are from it.
"""

from __future__ import annotations

__all__: list[str] = []
