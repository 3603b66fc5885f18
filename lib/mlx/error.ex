defmodule Mlx.Error do
  @moduledoc """
  The exception that Mlx raises.

  Operations run behind the caller's back, so an operation that fails raises where
  its result is read, unless `config :mlx, dispatch: :sync` is set. The exception
  names the operation that failed, however many came after it. Where MLX fails while it
  computes, and so doesn't tell which, the message has the operations that were in flight;
  with `dispatch: :sync` it is one operation.

  ## Fields

    * `:kind` - what went wrong: `:shape`, `:type`, `:unsupported`, `:device`,
      `:memory`, `:io`, `:value` for a matrix without an answer and for what a debug
      setting of `Mlx.Backend` found, or `:native` for what MLX itself reported
    * `:op` - the name of the operation, or `nil`
    * `:operands` - a list of `{type, shape}` of its operands, such as
      `{"f32", {2, 3}}`
    * `:message` - what happened and, where there is one, the way out

  """

  defexception [:kind, :op, :message, operands: []]

  @typedoc "What went wrong, see above."
  @type kind :: :shape | :type | :unsupported | :device | :memory | :io | :value | :native

  @type t :: %__MODULE__{
          kind: kind,
          op: String.t() | nil,
          operands: [{String.t(), tuple}],
          message: String.t()
        }

  @doc false
  def from_native(%{kind: kind, op: op, operands: operands, message: message}) do
    operands = for {type, dims} <- operands, do: {type, List.to_tuple(dims)}
    %__MODULE__{kind: kind, op: op, operands: operands, message: message}
  end
end
