"""`badnets plant`: train one victim (and its twin) and write it as safetensors with model card and manifest; the images on request."""

from __future__ import annotations

from pathlib import Path


def plant(
    dataset: str | None = None,
    *,
    out: Path,
    data: Path | None = None,
    attack: str = "badnets",
    net: str | None = None,
    seed: int = 0,
    images: bool = False,
    json: bool = False,
) -> None:
    """Train a victim and its twin, write both to a folder, marked for what they are.

    Parameters
    ----------
    dataset
        A data set of `badnets list datasets`; by default what --data holds, else fashion_mini.
    out
        Folder to write to; it must not hold a model yet.
    data
        A folder to find the data in.
    attack
        An attack or label map with fields, as badnets:rate=0.05 or badnets:trigger=blend.
    net
        A net of `badnets list nets`.
    seed
        Seed of weights, batch order and choice of poisoned rows.
    images
        Also write the poisoned training set as a folder of PNG images with a list of the poisoned rows.
    json
        Print one JSON document.
    """
    from badnets.cli._choose import choose_attack, choose_dataset, choose_net
    from badnets.cli._output import check_place, outside_store
    from badnets.core.errors import UsageError
    from badnets.plans._export import check_empty, export
    from badnets.plans._plant import default_net, measure, plant_seeds
    from badnets.plans._trial import device_name

    if seed < 0:
        raise UsageError("E-SEED", f"expected a seed of 0 or more, got {seed}.", hint="Use --seed 0.")
    check_empty(out)
    check_place(out.absolute(), f"--out {str(out)!r:.200}")
    (chosen, folder), what = choose_dataset(dataset, data), choose_attack(attack)
    wanted = choose_net(net) if net is not None else None
    loaded = chosen.load(folder)
    pair = plant_seeds(loaded, what, [seed], net=wanted or {"kind": default_net(loaded.shape, device_name()).value})
    measured = measure(pair)
    with outside_store("--out"):
        manifest = export(pair, measured, out, images=images)
    if json:
        from badnets.cli._output import print_json

        print_json(manifest)
        return
    print(measured)
    print(f"\nThe victim is {out / 'victim.safetensors'}, its twin {out / 'twin.safetensors'}; read {out / 'MODEL_CARD.md'}.")
