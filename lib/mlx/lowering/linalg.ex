defmodule Mlx.Lowering.Linalg do
  @moduledoc false

  use Mlx.Graph
  import Mlx.Lowering.Shape, only: [cast: 2, reshape: 2, transpose: 2]

  alias Mlx.Lowering.Quantization
  alias Nx.Block.LinAlg, as: Block

  # Rows of nodes that may stand for a quantized tensor.
  @quantized [:dequantize, :transpose, :cast]

  def ops, do: [:dot, :triangular_solve]

  def lower(:dot, out, [%{row: a}, _, _, %{row: b}, _, _] = args)
      when a in @quantized or b in @quantized,
      do: Quantization.dot(out, args) || dot(out, args)

  def lower(:dot, out, args), do: dot(out, args)

  def lower(:triangular_solve, out, [a, b, opts]) do
    type = float(out.type)
    {a, lower} = a |> cast(type) |> transform(opts[:lower], opts[:transform_a])
    b = cast(b, type)

    x =
      case {opts[:left_side], tuple_size(b.shape) < tuple_size(a.shape)} do
        {true, false} -> triangular_solve(a, b, lower)
        {true, true} -> triangular_solve(a, column(b), lower)
        # x A = b says that A's transpose times x's is b's.
        {false, false} -> swap(a) |> triangular_solve(swap(b), not lower) |> swap()
        {false, true} -> swap(a) |> triangular_solve(column(b), not lower)
      end

    x |> reshape(out.shape) |> cast(out.type)
  end

  def blocks do
    [Block.Cholesky, Block.Solve, Block.QR, Block.Eigh, Block.SVD, Block.LU, Block.Determinant]
  end

  def lower_block(%Block.Cholesky{}, out, [a]) do
    a = cast(a, float(out.type))
    op(:cholesky, [a], a.type, a.shape) |> cast(out.type)
  end

  def lower_block(%Block.Solve{}, out, [a, b]) do
    type = float(out.type)
    b = if tuple_size(b.shape) < tuple_size(a.shape), do: column(b), else: b

    op(:solve, [cast(a, type), cast(b, type)], type, b.shape)
    |> reshape(out.shape)
    |> cast(out.type)
  end

  def lower_block(%Block.Determinant{}, out, [a]) do
    type = determinant_type(a, out.type)
    op(:determinant, [cast(a, type)], type, out.shape) |> cast(out.type)
  end

  def lower_block(%Block.LU{}, {p, l, u}, [a]) do
    a = cast(a, float(l.type))

    ops(:lu, [a], [{:bool, p.shape}, {a.type, l.shape}, {a.type, u.shape}])
    |> cast_all({p, l, u})
  end

  def lower_block(%Block.QR{mode: mode, eps: eps}, {q, r}, [a]) do
    a = cast(a, float(q.type))

    ops(:qr, [a], [mode == :complete, eps], [{a.type, q.shape}, {a.type, r.shape}])
    |> cast_all({q, r})
  end

  def lower_block(%Block.Eigh{}, {values, vectors}, [a]) do
    a = cast(a, float(vectors.type))

    ops(:eigh, [a], [{Nx.Type.to_real(a.type), values.shape}, {a.type, vectors.shape}])
    |> cast_all({values, vectors})
  end

  def lower_block(%Block.SVD{full_matrices?: full}, {u, s, vt}, [a]) do
    a = cast(a, float(u.type))

    ops(:svd, [a], [full], [{a.type, u.shape}, {a.type, s.shape}, {a.type, vt.shape}])
    |> cast_all({u, s, vt})
  end

  # Products
  # Matrices as they are, which is what most products are.
  defp dot(%{type: {kind, _} = type} = out, [
         %{type: type, shape: {_, _}} = a,
         [1],
         [],
         %{type: type, shape: {_, _}} = b,
         [0],
         []
       ])
       when kind not in [:u, :s] do
    op(:matmul, [a, b], type, out.shape)
  end

  # A vector and the rows of a matrix.
  defp dot(out, [a, contract_a, [], b, contract_b, []] = args) do
    cond do
      rows?(out, b, contract_b) and vector?(out, a, contract_a) -> matvec(out, b, a)
      rows?(out, a, contract_a) and vector?(out, b, contract_b) -> matvec(out, a, b)
      true -> general(out, args)
    end
  end

  defp dot(out, args), do: general(out, args)

  # As it lies, which a transposed one doesn't.
  defp rows?(%{type: {kind, _} = type}, %{type: type, shape: {_, _}} = matrix, [1])
       when kind in [:f, :bf],
       do: matrix.row != :transpose

  defp rows?(_out, _matrix, _contract), do: false

  # One axis is left of it at most, of size 1.
  defp vector?(%{type: type}, %{type: type} = x, [axis]),
    do: size(x, [axis]) == size(x, free(x, []))

  defp vector?(_out, _x, _contract), do: false

  defp matvec(out, %{shape: {rows, columns}} = matrix, vector) do
    op(:matvec, [reshape(vector, {1, columns}), matrix], out.type, {1, rows})
    |> reshape(out.shape)
  end

  defp general(out, [a, contract_a, batch_a, b, contract_b, batch_b]) do
    free_a = free(a, contract_a ++ batch_a)
    free_b = free(b, contract_b ++ batch_b)
    batch = Enum.map(batch_a, &elem(a.shape, &1))
    [rows, inner] = sizes(a, [free_a, contract_a])
    columns = size(b, free_b)

    # Batch axes stay apart, as joining those of a transposed tensor would copy it.
    a = a |> transpose(batch_a ++ free_a ++ contract_a) |> matrix(batch, rows, inner)
    b = b |> transpose(batch_b ++ contract_b ++ free_b) |> matrix(batch, inner, columns)
    product(a, b, out.type) |> reshape(out.shape)
  end

  defp product(%{shape: a_shape} = a, b, type) do
    shape = put_elem(b.shape, tuple_size(b.shape) - 2, elem(a_shape, tuple_size(a_shape) - 2))

    cond do
      not Nx.Type.integer?(type) ->
        wide = exact(type, a.type, b.type)
        op(:matmul, [cast(a, wide), cast(b, wide)], wide, shape) |> cast(type)

      elem(a_shape, tuple_size(a_shape) - 1) == 1 ->
        op(:multiply, [cast(a, type), cast(b, type)], type, shape)

      true ->
        op(:integer_matmul, [cast(a, type), cast(b, type)], type, shape)
    end
  end

  @doc """
  The transpose of a product of matrices, as a product.
  """
  def transpose(%Mlx.Graph{row: :matmul, operands: [a, b], type: type, shape: {rows, columns}}) do
    op(:matmul, [transpose(b, [1, 0]), transpose(a, [1, 0])], type, {columns, rows})
  end

  # A half can't hold every integer that it is multiplied with.
  defp exact({_, 16} = type, a, b) when a == type and b == type, do: type
  defp exact({_, 16}, _a, _b), do: {:f, 32}
  defp exact(type, _a, _b), do: type

  defp matrix(x, batch, rows, columns), do: reshape(x, List.to_tuple(batch ++ [rows, columns]))

  defp free(x, taken), do: Enum.to_list(0..(tuple_size(x.shape) - 1)//1) -- taken

  defp sizes(x, groups), do: Enum.map(groups, &size(x, &1))

  defp size(x, axes), do: Enum.product(Enum.map(axes, &elem(x.shape, &1)))

  # Triangular systems

  defp triangular_solve(a, b, lower), do: op(:triangular_solve, [a, b], [lower], b.type, b.shape)

  defp transform(a, lower, :transpose), do: {swap(a), not lower}

  defp transform(%{type: {:c, _}} = a, lower, :conjugate),
    do: {op(:conjugate, [a], a.type, a.shape), lower}

  defp transform(a, lower, _none), do: {a, lower}

  defp column(x), do: reshape(x, Tuple.insert_at(x.shape, tuple_size(x.shape), 1))

  defp swap(x) do
    {batch, [rows, columns]} = Enum.split(Enum.to_list(0..(tuple_size(x.shape) - 1)), -2)
    transpose(x, batch ++ [columns, rows])
  end

  # Types

  # What the engine factorizes.
  defp float({:c, 64}), do: {:c, 64}
  defp float({:f, 64}), do: {:f, 64}
  defp float(_type), do: {:f, 32}

  # Nx multiplies integers as such where it has a closed formula.
  defp determinant_type(a, out) do
    if elem(a.shape, tuple_size(a.shape) - 1) in [2, 3],
      do: Nx.Type.to_aggregate(a.type),
      else: float(out)
  end

  defp cast_all(nodes, outs) do
    nodes |> Enum.zip_with(Tuple.to_list(outs), &cast(&1, &2.type)) |> List.to_tuple()
  end
end
