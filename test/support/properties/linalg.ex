defmodule Mlx.Properties.Linalg do
  @moduledoc false

  use ExUnitProperties
  import StreamData
  import Mlx.Generators, only: [tensor: 3]
  import Mlx.Samples, only: [integers: 0, pairs: 0]
  alias Nx.Block.LinAlg, as: Block
  alias Nx.LinAlg

  @types [:f32, :f64, :c64]
  @halves [:f16, :bf16]

  # A matrix is as close to what its factors make as some units of its largest element.
  @close [ulps: 512, scale: 4.0, signed_zero: false]

  def all do
    [
      {:dot, dot()},
      {:triangular_solve, triangular_solve()},
      {Block.Cholesky, cholesky()},
      {Block.Solve, solve()},
      {Block.QR, qr()},
      {Block.Eigh, eigh()},
      {Block.SVD, svd()},
      {Block.LU, lu()},
      {Block.Determinant, determinant()},
      {"orthonormal factors", orthonormal()},
      {"invert, matrix_power and norm", others()}
    ]
  end

  defp dot do
    gen all batch <- list_of(integer(1..3), max_length: 2),
            inner <- list_of(integer(1..4), max_length: 2),
            places = Enum.with_index(inner, fn size, at -> {:inner, at, size} end),
            free_a <- list_of({:free, constant(nil), integer(1..4)}, max_length: 2),
            free_b <- list_of({:free, constant(nil), integer(1..4)}, max_length: 2),
            order_a <- shuffle(places ++ free_a),
            order_b <- shuffle(places ++ free_b),
            {type_a, type_b} <- member_of(pairs()),
            # Floats of very different sizes add up to what the order of the additions makes.
            options = [small: not (type_a in integers() and type_b in integers())],
            a <- tensor(type_a, shape(batch, order_a), options),
            b <- tensor(type_b, shape(batch, order_b), options) do
      batches = Enum.to_list(0..(length(batch) - 1)//1)
      [axes_a, axes_b] = for order <- [order_a, order_b], do: contracted(batch, order)
      fun = &Nx.dot(&1, axes_a, batches, &2, axes_b, batches)
      {fun, [a, b], ulps: 16, scale: 64.0, signed_zero: false}
    end
  end

  # Not those of Mlx.Generators: of batch axes and others in some order.
  defp shape(batch, order), do: List.to_tuple(batch ++ Enum.map(order, &elem(&1, 2)))

  defp contracted(batch, order) do
    for({{:inner, at, _}, place} <- Enum.with_index(order), do: {at, place + length(batch)})
    |> Enum.sort()
    |> Enum.map(&elem(&1, 1))
  end

  defp triangular_solve do
    gen all type <- member_of(@types ++ @halves),
            {batch, n, columns} <- {batch(), integer(1..6), integer(1..4)},
            lower <- boolean(),
            left_side <- boolean(),
            transform <- member_of([:none, :transpose, :conjugate]),
            vector <- boolean(),
            a <- matrix(type, batch, n, n),
            b <- matrix(type, batch, n, columns) do
      b = if left_side, do: b, else: LinAlg.adjoint(b) |> Nx.as_type(type)
      b = if vector, do: Nx.slice_along_axis(b, 0, 1, axis: short(left_side)), else: b
      b = if vector, do: Nx.squeeze(b, axes: [short(left_side)]), else: b
      options = [lower: lower, left_side: left_side, transform_a: transform]
      {&LinAlg.triangular_solve(&1, &2, options), [dominant(a, type), b], @close}
    end
  end

  defp short(true), do: -1
  defp short(false), do: -2

  # What a factorization makes up again.
  defp cholesky do
    gen all type <- member_of(@types), a <- definite(type) do
      {&(&1 |> LinAlg.cholesky() |> squared()), [a], [oracle: & &1] ++ @close}
    end
  end

  defp squared(l), do: times(l, LinAlg.adjoint(l))

  defp solve do
    gen all type <- member_of(@types),
            {batch, n, columns} <- {batch(), integer(1..6), integer(1..3)},
            a <- matrix(type, batch, n, n),
            b <- matrix(type, batch, n, columns) do
      back = fn a, b -> times(a, LinAlg.solve(a, b)) end
      {back, [dominant(a, type), b], [oracle: fn _a, b -> b end] ++ @close}
    end
  end

  defp qr do
    gen all {a, _m, _n} <- rectangle(@types), mode <- member_of([:reduced, :complete]) do
      back = fn a ->
        {q, r} = LinAlg.qr(a, mode: mode)
        # What is below the diagonal would show.
        below = Nx.subtract(r, Nx.triu(r))
        times(q, Nx.add(r, Nx.multiply(below, 1.0e6)))
      end

      {back, [a], [oracle: & &1] ++ @close}
    end
  end

  defp eigh do
    gen all type <- member_of(@types), a <- definite(type) do
      back = fn a ->
        {values, vectors} = LinAlg.eigh(a)
        times(Nx.multiply(vectors, Nx.new_axis(values, -2)), LinAlg.adjoint(vectors))
      end

      {back, [a], [oracle: & &1] ++ @close}
    end
  end

  defp svd do
    gen all {a, m, n} <- rectangle(@types -- [:c64]), full <- boolean() do
      back = fn a ->
        {u, s, vt} = LinAlg.svd(a, full_matrices?: full)
        u = Nx.slice_along_axis(u, 0, min(m, n), axis: -1)
        vt = Nx.slice_along_axis(vt, 0, min(m, n), axis: -2)
        times(Nx.multiply(u, Nx.new_axis(s, -2)), vt)
      end

      {back, [a], [oracle: & &1] ++ @close}
    end
  end

  defp lu do
    gen all type <- member_of(@types),
            {batch, n} <- {batch(), integer(1..6)},
            a <- matrix(type, batch, n, n) do
      back = fn a ->
        {p, l, u} = LinAlg.lu(a)
        p |> times(l) |> times(u)
      end

      {back, [a], [oracle: & &1] ++ @close}
    end
  end

  defp determinant do
    gen all type <- member_of(@types),
            {batch, n} <- {batch(), integer(1..5)},
            a <- matrix(type, batch, n, n) do
      {&LinAlg.determinant/1, [dominant(a, type)], ulps: 4096, scale: 1.0, signed_zero: false}
    end
  end

  defp orthonormal do
    gen all {a, m, n} <- rectangle(@types), mode <- member_of([:reduced, :complete]) do
      product = fn a ->
        {q, _} = LinAlg.qr(a, mode: mode)
        times(LinAlg.adjoint(q), q)
      end

      columns = if mode == :complete, do: m, else: min(m, n)
      {batch, _matrix} = a.shape |> Tuple.to_list() |> Enum.split(-2)
      shape = List.to_tuple(batch ++ [columns, columns])
      identity = fn a -> Nx.eye(shape, type: a.type) end
      {product, [a], [oracle: identity] ++ @close}
    end
  end

  defp others do
    gen all type <- member_of(@types -- [:c64]),
            n <- integer(1..5),
            a <- matrix(type, [], n, n),
            power <- integer(0..3),
            {fun, oracle} <-
              member_of([
                {fn a -> times(a, LinAlg.invert(a)) end, &Nx.eye(&1.shape, type: &1.type)},
                {&LinAlg.matrix_power(&1, power), &LinAlg.matrix_power(&1, power)},
                {&LinAlg.norm/1, &LinAlg.norm/1},
                {&LinAlg.norm(&1, ord: 1), &LinAlg.norm(&1, ord: 1)},
                {&LinAlg.adjoint/1, &LinAlg.adjoint/1}
              ]) do
      {fun, [dominant(a, type)], [oracle: oracle] ++ @close}
    end
  end

  defp rectangle(types) do
    gen all type <- member_of(types),
            {batch, m, n} <- {batch(), integer(1..6), integer(1..6)},
            a <- matrix(type, batch, m, n) do
      {a, m, n}
    end
  end

  defp batch, do: list_of(integer(1..2), max_length: 2)

  defp matrix(type, batch, rows, columns) do
    tensor(type, List.to_tuple(batch ++ [rows, columns]), between: {-1, 1})
  end

  defp definite(type) do
    gen all {batch, n} <- {batch(), integer(1..6)}, a <- matrix(type, batch, n, n) do
      a |> squared() |> Nx.add(Nx.eye(n)) |> Nx.as_type(type)
    end
  end

  # Solvable, and well so.
  defp dominant(a, type) do
    n = Nx.axis_size(a, -1)
    a |> Nx.divide(2 * n) |> Nx.add(Nx.eye(n)) |> Nx.as_type(type)
  end

  defp times(a, b) do
    rank = Nx.rank(a)
    batch = Enum.to_list(0..(rank - 3)//1)
    Nx.dot(a, [rank - 1], batch, b, [rank - 2], batch)
  end
end
