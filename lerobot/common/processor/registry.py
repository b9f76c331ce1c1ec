"""Names by which saved pipelines find their steps."""

from __future__ import annotations

from collections.abc import Callable


class ProcessorStepRegistry:
    """Step classes by the name that stands in `policy_preprocessor.json`; a name exists once its module is
    imported.
    """

    _classes: dict[str, type] = {}

    @classmethod
    def register(cls, name: str | None = None) -> Callable[[type], type]:
        """Class decorator; the name defaults to the class name. Raises ValueError for a taken name."""

        def decorate(step_class: type) -> type:
            key = name or step_class.__name__
            if key in cls._classes:
                raise ValueError(f"Processor step '{key}' is already registered, by {cls._classes[key]}.")
            cls._classes[key] = step_class
            step_class._registry_name = key
            return step_class

        return decorate

    @classmethod
    def get(cls, name: str) -> type:
        """The class of a name. Raises KeyError listing the known names."""
        if name not in cls._classes:
            raise KeyError(f"Processor step '{name}' not found in registry. Available steps: {sorted(cls._classes)}.")
        return cls._classes[name]

    @classmethod
    def unregister(cls, name: str) -> None:
        """Forget a name."""
        cls._classes.pop(name, None)

    @classmethod
    def list(cls) -> list[str]:
        """Every registered name."""
        return [*cls._classes]

    @classmethod
    def clear(cls) -> None:
        """Forget all names."""
        cls._classes.clear()
