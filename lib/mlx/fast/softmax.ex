defmodule Mlx.Fast.Softmax do
  @moduledoc false

  import Mlx.Fast.Operand

  defstruct [:axis, :precise]

  def run(x, opts) do
    opts = Keyword.validate!(opts, axis: -1, precise: true)
    precise = boolean!(:softmax, opts, :precise)
    x = ranked!(:softmax, "a tensor", x, 1)
    axis = Nx.axis_index(x, opts[:axis]) + length(x.vectorized_axes)
    type = type!(:softmax, [x])
    {x, restore} = plain(x)
    x = Nx.as_type(x, type)
    block = %__MODULE__{axis: axis, precise: precise}
    block |> Nx.block([x], Nx.to_template(x), &compose/2) |> restore.()
  end

  def compose(%{axis: axis, precise: precise}, x) do
    wide = if precise, do: Nx.as_type(x, wide(x.type)), else: x
    largest = wide |> Nx.reduce_max(axes: [axis], keep_axes: true) |> fixed()
    powers = wide |> Nx.subtract(largest) |> Nx.exp()
    powers |> Nx.divide(Nx.sum(powers, axes: [axis], keep_axes: true)) |> Nx.as_type(x.type)
  end
end
