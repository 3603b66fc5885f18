defmodule Mlx.Compiler.Step do
  @moduledoc false

  # What the host does: `{:call, data, fun}`, where the function takes tensors like the
  # expressions of `data` and gives a list of tensors; `{:once, data, fun}`, with a token
  # before the other operands that knows whether it has been called, and `:token`, which
  # gives one; `{:cond, [on_true, on_false]}`, with a predicate before the other operands;
  # or `{:while, [condition, body]}`.

  @enforce_keys [:action, :operands, :results]
  defstruct [:action, :operands, :results]
end
