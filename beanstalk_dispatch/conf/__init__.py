"""The one registry of settings, and the configuration of this process.

``variables`` has the package's own variables. A contrib room declares a SettingsGroup of its own
and registers it. Each group is read by itself: a wrong value in one never breaks another.
"""

from .config import Config, clear_caches, contradictions, get_config
from .environment import (
    Values,
    default_region,
    file_of,
    is_in_environment,
    is_on_lambda,
    is_test,
    wants_no_color,
)
from .misspellings import unknown_variables
from .registry import (
    empty_variables,
    import_rooms,
    overruled_variables,
    register,
    registered_groups,
    values_of,
)
from .removed import replacement_of
from .setting import Setting, SettingsGroup, flag
from .variables import CORE, SETTINGS

__all__ = [
    "CORE",
    "SETTINGS",
    "Config",
    "Setting",
    "SettingsGroup",
    "Values",
    "clear_caches",
    "contradictions",
    "default_region",
    "empty_variables",
    "file_of",
    "flag",
    "get_config",
    "import_rooms",
    "is_in_environment",
    "is_on_lambda",
    "is_test",
    "overruled_variables",
    "register",
    "registered_groups",
    "replacement_of",
    "unknown_variables",
    "values_of",
    "wants_no_color",
]
