"""Rewriting a parsed chat template so that the sandbox sees all that it makes.

jinja2 lets a sandbox see operators and calls. Literals, slices, ``~``, output and the turns of
loops become calls of the sandbox's methods here.
"""

# ruff: noqa: N802, N815  # jinja2 finds these methods by the names of its nodes

from __future__ import annotations

from typing import Any

import jinja2.nodes
import jinja2.visitor

__all__ = ["Metering"]


class Metering(jinja2.visitor.NodeTransformer):
    """Puts calls of :class:`~edge_runtime.template_sandbox.Sandbox`'s methods into a template."""

    def _call(self, name: str, *args: jinja2.nodes.Node) -> jinja2.nodes.Call:
        method = jinja2.nodes.EnvironmentAttribute(name)
        line = args[0].lineno if args else None
        return jinja2.nodes.Call(method, list(args), [], None, None, lineno=line)

    def _visit_made(self, node: Any) -> jinja2.nodes.Node:  # noqa: ANN401  # any of those below
        self.generic_visit(node)
        return self._call("charge", node) if getattr(node, "ctx", "load") == "load" else node

    visit_List = visit_Tuple = visit_Dict = _visit_made

    def visit_Getitem(self, node: jinja2.nodes.Getitem) -> jinja2.nodes.Node:
        """Charge slices, which are copies."""
        if isinstance(node.arg, jinja2.nodes.Slice):
            return self._visit_made(node)
        return self.generic_visit(node)

    def visit_Concat(self, node: jinja2.nodes.Concat) -> jinja2.nodes.Node:
        """Concatenate in the sandbox."""
        self.generic_visit(node)
        return self._call("concatenate", *node.nodes)

    def visit_Output(self, node: jinja2.nodes.Output) -> jinja2.nodes.Node:
        """Charge each piece of output, plain text too."""
        self.generic_visit(node)
        node.nodes = [self._call("emit", item) for item in node.nodes]
        return node

    def visit_For(self, node: jinja2.nodes.For) -> jinja2.nodes.Node:
        """Look at the clock in each turn."""
        self.generic_visit(node)
        node.iter = self._call("counted", node.iter)
        return node
