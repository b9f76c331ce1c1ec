"""The page that a policy has on the hub, and its upload with it."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from huggingface_hub import HfApi, ModelCard, ModelCardData

from lerobot.common.utils.hub import hub_is_reachable

if TYPE_CHECKING:
    from lerobot.common.policies.pretrained import PreTrainedPolicy

TEXT = """
# {title}

A `{model_type}` policy, trained on the dataset `{dataset}`.

```bash
python lerobot/scripts/train.py --policy.path={title} --dataset.root=DATASET
python lerobot/scripts/eval.py --policy.path={title} --env.type=koch
```
"""


def make_model_card(
    dataset_repo_id: str | None,
    model_type: str,
    license: str | None,
    tags: list[str] | None,
    repo_id: str | None = None,
) -> ModelCard:
    """The README.md of a policy; `str()` of it is the text, `save(path)` writes it. Nothing is asked of the hub."""
    data = ModelCardData(
        license=license or "apache-2.0",
        library_name="lerobot",
        pipeline_tag="robotics",
        tags=sorted({*(tags or []), "robotics", "lerobot", model_type}),
        model_name=model_type,
        datasets=dataset_repo_id,
    )
    text = TEXT.format(title=repo_id or "CHECKPOINT", model_type=model_type, dataset=dataset_repo_id)
    return ModelCard(f"---\n{data.to_yaml()}\n---\n{text}")


def push_model(policy: PreTrainedPolicy, cfg: Any, api: HfApi | None = None) -> str:
    """Upload weights, config, the train config `cfg` and a card to `policy.config.repo_id`; returns the address.

    Raises ValueError without a repository, and ConnectionError without a network.
    """
    config = policy.config
    if not config.repo_id:
        raise ValueError("push_model_to_hub needs policy.config.repo_id (--policy.repo_id=OWNER/NAME).")
    if api is None and not hub_is_reachable():
        raise ConnectionError(
            f"'{config.repo_id}' was not uploaded: the hub cannot be reached. Save the policy with "
            "save_pretrained(FOLDER) and upload it later: "
            "python lerobot/scripts/push_pretrained.py --pretrained_path=FOLDER --repo_id=..."
        )
    api = api or HfApi()
    repo_id = api.create_repo(config.repo_id, private=config.private, exist_ok=True).repo_id
    with TemporaryDirectory() as folder:
        policy.save_pretrained(folder)
        cfg.save_pretrained(folder)
        dataset = getattr(cfg.dataset, "repo_id", None)
        card = policy.generate_model_card(dataset, config.type, config.license, config.tags)
        card.save(Path(folder) / "README.md")
        info = api.upload_folder(
            repo_id=repo_id, folder_path=folder, commit_message="Upload policy weights, train config and readme"
        )
    return str(getattr(info, "repo_url", info))
