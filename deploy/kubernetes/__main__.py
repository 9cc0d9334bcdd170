"""`python -m deploy.kubernetes`: write the base anew, and the example's parties, from deploy/services.py and schemas/topics.yaml."""

from deploy.kubernetes.manifests import FOLDER, files

for _name, _text in files().items():
    (FOLDER / _name).parent.mkdir(parents=True, exist_ok=True)
    (FOLDER / _name).write_text(_text, encoding="utf-8")
