"""Setting a keyword of a call."""

from __future__ import annotations

import libcst as cst

from vqdoctor.source.edit import code


def with_keyword(module: cst.Module, call: cst.Call, name: str, value: str) -> cst.Module | None:
    """Return the file with an argument of a call set, or added behind the last; None where it is set so."""
    new = cst.parse_expression(value, module.config_for_parsing)
    for argument in call.args:
        if argument.keyword is not None and argument.keyword.value == name:
            if code(argument.value) == value:
                return None
            changed = module.deep_replace(argument.value, new)
            assert isinstance(changed, cst.Module)
            return changed
    equal = cst.AssignEqual(cst.SimpleWhitespace(""), cst.SimpleWhitespace(""))
    added = cst.Arg(value=new, keyword=cst.Name(name), equal=equal)
    kept = list(call.args)
    if kept:
        last = kept[-1]
        comma = last.comma if isinstance(last.comma, cst.Comma) else cst.MaybeSentinel.DEFAULT
        added = added.with_changes(comma=comma)
        before = next((arg.comma for arg in kept if isinstance(arg.comma, cst.Comma)), None)
        between = (
            before
            if before is not None and len(kept) > 1
            else cst.Comma(whitespace_after=cst.SimpleWhitespace(" "))
        )
        kept[-1] = last.with_changes(comma=between)
    changed = module.deep_replace(call, call.with_changes(args=[*kept, added]))
    assert isinstance(changed, cst.Module)
    return changed
