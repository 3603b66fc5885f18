defmodule Mlx.Fast.LayerNorm do
  @moduledoc false

  import Mlx.Fast.Operand

  defstruct [:eps, :weight?, :bias?]

  def run(x, weight, bias, opts) do
    opts = Keyword.validate!(opts, eps: 1.0e-5)
    eps = number!(:layer_norm, opts, :eps)
    x = ranked!(:layer_norm, "a tensor", x, 1)
    {weight, bias} = {tensor(weight), tensor(bias)}
    type = type!(:layer_norm, [x, weight, bias])
    weight = vector(:layer_norm, "weight", weight, last(x), type)
    bias = vector(:layer_norm, "bias", bias, last(x), type)
    block = %__MODULE__{eps: eps, weight?: weight != nil, bias?: bias != nil}
    {x, restore} = plain(x)
    args = [Nx.as_type(x, type) | Enum.reject([weight, bias], &is_nil/1)]
    block |> Nx.block(args, Nx.to_template(hd(args)), default(length(args))) |> restore.()
  end

  defp default(1), do: fn block, x -> compose(block, x, []) end
  defp default(2), do: fn block, x, a -> compose(block, x, [a]) end
  defp default(3), do: fn block, x, a, b -> compose(block, x, [a, b]) end

  def compose(%{eps: eps} = block, x, affine) do
    wide = Nx.as_type(x, wide(x.type))
    centred = Nx.subtract(wide, Nx.mean(wide, axes: [-1], keep_axes: true))
    variance = centred |> Nx.multiply(centred) |> Nx.mean(axes: [-1], keep_axes: true)
    scale = variance |> Nx.add(constant(eps, variance.type)) |> Nx.rsqrt()
    centred |> Nx.multiply(scale) |> Nx.as_type(x.type) |> affine(block, affine)
  end

  defp affine(x, %{weight?: true} = block, [weight | rest]),
    do: x |> Nx.multiply(weight) |> affine(%{block | weight?: false}, rest)

  defp affine(x, %{bias?: true}, [bias]), do: Nx.add(x, bias)
  defp affine(x, _block, []), do: x
end
