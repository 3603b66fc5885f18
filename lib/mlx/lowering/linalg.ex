defmodule Mlx.Lowering.Linalg do
  @moduledoc false

  use Mlx.Graph
  import Mlx.Lowering.Shape, only: [cast: 2, reshape: 2, transpose: 2]

  def ops, do: [:dot]

  def lower(:dot, out, [a, contract_a, batch_a, b, contract_b, batch_b]) do
    free_a = free(a, contract_a ++ batch_a)
    free_b = free(b, contract_b ++ batch_b)
    [batch, rows, inner] = sizes(a, [batch_a, free_a, contract_a])
    columns = size(b, free_b)

    a = a |> transpose(batch_a ++ free_a ++ contract_a) |> cast(out.type)

    case out.type do
      {kind, _} when kind in [:s, :u] ->
        # MLX multiplies matrices of floats only; this keeps every bit.
        b = b |> transpose(batch_b ++ free_b ++ contract_b) |> cast(out.type)
        a = reshape(a, {batch, rows, 1, inner})
        b = reshape(b, {batch, 1, columns, inner})
        products = op(:multiply, [a, b], out.type, {batch, rows, columns, inner})
        op(:sum, [products], [[3]], out.type, {batch, rows, columns, 1})

      _ ->
        b = b |> transpose(batch_b ++ contract_b ++ free_b) |> cast(out.type)
        matmul(a, b, out.type, {batch, rows, inner, columns})
    end
    |> reshape(out.shape)
  end

  defp matmul(a, b, type, {1, rows, inner, columns}) do
    op(:matmul, [reshape(a, {rows, inner}), reshape(b, {inner, columns})], type, {rows, columns})
  end

  defp matmul(a, b, type, {batch, rows, inner, columns}) do
    a = reshape(a, {batch, rows, inner})
    b = reshape(b, {batch, inner, columns})
    op(:matmul, [a, b], type, {batch, rows, columns})
  end

  defp free(x, taken), do: Enum.to_list(0..(tuple_size(x.shape) - 1)//1) -- taken

  defp sizes(x, groups), do: Enum.map(groups, &size(x, &1))

  defp size(x, axes), do: Enum.product(Enum.map(axes, &elem(x.shape, &1)))
end
