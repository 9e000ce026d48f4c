"""Which certificates a network admits, which are asked for, and the methods that issue them."""

from collections.abc import Mapping, Sequence

from bench.basics.errors import UsageError, unknown
from bench.methods import given_methods
from bench.methods.given import Effort, Given, GivenNetwork


def issuers() -> dict[str, type[Given]]:
    """Return certificate -> the method that issues it, in canonical order."""
    return {name: method for method in given_methods().values() for name in method.certificates}


def obstacles(network: GivenNetwork) -> dict[str, str]:
    """Return certificate -> why it cannot be issued for the network, empty where it can."""
    return {
        name: why
        for method in given_methods().values()
        for why in [method.obstacle(network)]
        for name in method.certificates
    }


def choose(wanted: Sequence[str] | None, against: Mapping[str, str], effort: Effort) -> tuple[str, ...]:
    """Return the certificates to issue, in canonical order; raise UsageError for one that does not apply.

    Unless some are named: those of the methods that come first where they apply, else all that apply; and, where sigma
    is given, what is usual in noise.
    """
    known = issuers()
    for name in wanted or ():
        if name not in known:
            raise unknown("certificate", name, known)
        if against[name]:
            raise UsageError(f"certificate {name!r} does not apply: {against[name]}")
        if known[name].needs_sigma and effort.sigma is None:
            raise UsageError(
                f"certificate {name!r} needs --sigma, the standard deviation of its noise, for example 0.25"
            )
    if wanted:
        return tuple(name for name in known if name in wanted)
    possible = {name: method for name, method in known.items() if not against[name]}
    plain = {name: method.chosen for name, method in possible.items() if not method.needs_sigma}
    best = "first" if "first" in plain.values() else "then"
    chosen = [name for name, when in plain.items() if when == best]
    if effort.sigma is not None:
        chosen += [name for name, way in possible.items() if way.needs_sigma and way.chosen != "by name"]
    if not chosen:
        reason = next(
            against[name] for name, method in known.items() if method.chosen == "then" and against[name]
        )
        raise UsageError(
            f"no certificate applies without noise ({reason}): give --sigma, for example 0.25, for "
            "randomized smoothing, which only runs the network"
        )
    return tuple(chosen)


def methods_for(network: GivenNetwork, chosen: Sequence[str], effort: Effort) -> list[Given]:
    """Return the methods that issue the chosen certificates, free and in the box where both exist."""
    found = []
    for kind in given_methods().values():
        mine = [name for name in chosen if name in kind.certificates]
        if mine:
            method = kind(kind.settings_for(mine, effort), network.device)
            method.given = network
            found.append(method)
    return found


def described(against: Mapping[str, str], chosen: Sequence[str]) -> str:
    """Say which certificates apply, one line per method."""
    lines = []
    for method in given_methods().values():
        names = method.certificates
        why = against[names[0]]
        state = f"no: {why}" if why else "yes" if set(names) & set(chosen) else "yes, on request"
        lines.append(f"  {', '.join(names)}: {state}")
    return "\n".join(["Certificates that apply:", *lines])
