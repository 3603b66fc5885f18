defmodule Mlx.Lowering.FactorizationTest do
  use ExUnit.Case, async: true
  import Mlx.Oracle
  import Mlx.Samples, only: [tensor: 2]
  import Mlx.TestDevice, only: [types: 1]
  alias Nx.LinAlg

  # Nx rounds each step to a half; the engine rounds the result.
  @halves [:f16, :bf16]
  @types types([:f32, :f64, :c64])
  # The oracle is asked about up to eight rows only: it takes seconds for more.
  @sizes [1, 2, 3, 5, 8, 33]
  @epsilon %{{:f, 32} => 2.0 ** -23, {:f, 64} => 2.0 ** -52, {:c, 64} => 2.0 ** -23}

  # A matrix whose elements are between -1 and 1 with a heavier diagonal.
  defp matrix(type, shape, seed) do
    :rand.seed(:exsss, seed)
    real = fn -> for _ <- 1..Tuple.product(shape), do: 2 * :rand.uniform() - 1 end

    x =
      case Nx.Type.normalize!(type) do
        {:c, _} -> Enum.zip_with(real.(), real.(), &Complex.new/2)
        {kind, _} when kind in [:u, :s] -> Enum.map(real.(), &round(9 * abs(&1)))
        _ -> real.()
      end

    x |> tensor(type) |> Nx.reshape(shape)
  end

  defp square(type, n, seed \\ 1), do: matrix(type, {n, n}, seed)

  defp definite(type, shape, seed \\ 1) do
    a = matrix(type, shape, seed)
    n = elem(shape, tuple_size(shape) - 1)

    a
    |> times(LinAlg.adjoint(a))
    |> Nx.add(Nx.eye(shape, type: type))
    |> Nx.divide(n)
    |> Nx.as_type(type)
  end

  defp hermitian(type, shape, seed \\ 1) do
    a = matrix(type, shape, seed)
    a |> Nx.add(LinAlg.adjoint(a)) |> Nx.as_type(type)
  end

  defp times(a, b) do
    rank = Nx.rank(a)
    batch = Enum.to_list(0..(rank - 3)//1)
    Nx.dot(a, [rank - 1], batch, b, [rank - 2], batch)
  end

  defp diagonal_times(u, s), do: Nx.multiply(u, Nx.new_axis(s, -2))

  defp mlx(tensor), do: Nx.backend_copy(tensor, Mlx.Backend)

  defp tensors(tuple) when is_tuple(tuple), do: Tuple.to_list(tuple)
  defp tensors(tensor), do: [tensor]

  defp assert_near(got, expected, factor \\ 1) do
    assert Nx.shape(got) == Nx.shape(expected)
    n = got |> Nx.shape() |> Tuple.to_list() |> Enum.max(fn -> 1 end)
    size = expected |> Nx.abs() |> Nx.reduce_max() |> Nx.to_number() |> max(1.0)
    epsilon = Map.get(@epsilon, got.type, 2.0 ** -23)
    distance = got |> Nx.subtract(expected) |> Nx.abs() |> Nx.reduce_max() |> Nx.to_number()
    bound = 16 * factor * n * epsilon * size

    assert is_number(distance) and distance <= bound,
           "#{inspect(got)} is #{distance} (bound #{bound}) from #{inspect(expected)}"
  end

  defp assert_orthonormal(q) do
    columns = Nx.axis_size(q, -1)
    shape = q.shape |> put_elem(Nx.rank(q) - 2, columns)
    assert_near(times(LinAlg.adjoint(q), q), Nx.eye(shape, type: q.type))
  end

  defp all_nan?(tensor) do
    tensor |> Nx.is_nan() |> Nx.all() |> Nx.to_number() == 1
  end

  # In each way that Mlx has, the error names the operation when its result is read.
  defp refuses(fun, op, args) do
    for run <- [fun, Nx.Defn.jit(fun, compiler: Mlx.Compiler)] ++ fused(fun) do
      error = assert_raise Mlx.Error, fn -> Mlx.eval(apply(run, Enum.map(args, &mlx/1))) end
      assert {error.kind, error.op} == {:value, op}
    end
  end

  defp fused(fun), do: [Nx.Defn.jit(fun, compiler: Mlx.Compiler, fuse: true)]

  describe "cholesky" do
    for type <- @types, n <- @sizes do
      test "of #{type}, #{n} rows" do
        a = definite(unquote(type), {unquote(n), unquote(n)})
        l = run(&LinAlg.cholesky/1, [a])
        assert l.type == a.type
        assert_near(times(l, LinAlg.adjoint(l)), a)
        assert_near(l, Nx.tril(l), 0)
        # BinaryBackend adds 1.0e-10 to each divisor.
        factor = if unquote(type) == :f64, do: 1.0e7, else: 16
        if unquote(n) <= 8, do: assert_near(l, LinAlg.cholesky(a), factor)
      end
    end

    test "reads only the lower triangle" do
      a = definite(:f32, {4, 4})
      garbage = Nx.add(a, Nx.triu(Nx.broadcast(tensor(100.0, :f32), {4, 4}), k: 1))
      assert run(&LinAlg.cholesky/1, [garbage]) == run(&LinAlg.cholesky/1, [a])
    end

    test "of batches, of which one is not positive-definite or has a NaN" do
      a = definite(:f32, {2, 3, 3})
      bad = tensor([[[1.0, 2.0, 0.0], [2.0, 1.0, 0.0], [0.0, 0.0, 1.0]]], :f32)
      unknown = Nx.multiply(bad, :nan)
      refuses(&LinAlg.cholesky/1, "cholesky", [Nx.concatenate([a, bad])])
      refuses(&LinAlg.cholesky/1, "cholesky", [Nx.concatenate([unknown, bad])])

      l = run(&LinAlg.cholesky/1, [Nx.concatenate([a, unknown])])
      assert_near(l[0..1], LinAlg.cholesky(a), 16)
      assert all_nan?(l[2])
    end

    # MLX gives a wrong factor for these.
    for {name, rows} <- [
          negative: [[-1.0, 0.0], [0.0, 1.0]],
          indefinite: [[1.0, 2.0], [2.0, 1.0]],
          singular: [[1.0, 1.0], [1.0, 1.0]],
          zero: [[0.0, 0.0], [0.0, 0.0]]
        ],
        type <- @types do
      test "of a matrix that is #{name}, of #{type}, is refused" do
        refuses(&LinAlg.cholesky/1, "cholesky", [tensor(unquote(rows), unquote(type))])
      end
    end

    for {name, rows} <- [
          nan: [[:nan, 0.0], [0.0, 1.0]],
          nan_below: [[1.0, 0.0], [:nan, 1.0]]
        ],
        type <- @types do
      test "of a matrix with #{name}, of #{type}, is NaN" do
        assert all_nan?(run(&LinAlg.cholesky/1, [tensor(unquote(rows), unquote(type))]))
      end
    end

    for n <- [40, 130, 300], at <- [0, div(n, 2), n - 1] do
      test "of #{n} rows that fails at #{at} is refused" do
        indices = 0..(unquote(n) - 1)

        element = fn
          unquote(at), unquote(at) -> -1.0
          i, i -> 4.0
          i, j -> 0.5 ** abs(i - j)
        end

        a = tensor(for(i <- indices, do: for(j <- indices, do: element.(i, j))), :f32)
        refuses(&LinAlg.cholesky/1, "cholesky", [a])
      end
    end
  end

  describe "lu" do
    for type <- @types, n <- @sizes do
      test "of #{type}, #{n} rows" do
        a = square(unquote(type), unquote(n))
        {p, l, u} = run(&LinAlg.lu/1, [a])
        assert {p.type, l.type, u.type} == {a.type, a.type, a.type}
        assert_near(p |> times(l) |> times(u), a)

        if unquote(n) <= 8 do
          {expected_p, expected_l, expected_u} = LinAlg.lu(a)
          assert Nx.to_flat_list(p) == Nx.to_flat_list(expected_p)
          assert_near(l, expected_l, 8)
          assert_near(u, expected_u, 8)
        end
      end
    end

    for type <- [:u8, :s64] do
      test "of #{type} has a permutation of #{type}" do
        a = square(unquote(type), 4)
        {p, l, u} = run(&LinAlg.lu/1, [a])
        assert {p.type, l.type, u.type} == {a.type, {:f, 32}, {:f, 32}}
        assert_near(p |> times(l) |> times(u), Nx.as_type(a, :f32))
      end
    end

    for type <- @types do
      test "of singular matrices of #{type} is a factorization" do
        for rows <- [[[1, 1], [1, 1]], [[0, 0], [0, 0]], [[0, 1], [0, 2]], [[0, 0], [1, 2]]] do
          a = tensor(rows, unquote(type))
          {p, l, u} = run(&LinAlg.lu/1, [a])
          assert_near(p |> times(l) |> times(u), a)
        end
      end

      test "of what is not finite, of #{type}, is NaN" do
        a =
          Nx.stack([
            tensor([[1, 2], [3, 5]], unquote(type)),
            tensor([[1, :nan], [3, 5]], unquote(type)),
            tensor([[:infinity, 2], [3, 5]], unquote(type))
          ])

        {p, l, u} = run(&LinAlg.lu/1, [a])
        assert_near(p[0] |> times(l[0]) |> times(u[0]), a[0])
        assert all_nan?(l[1..2]) and all_nan?(u[1..2])
        assert Nx.to_flat_list(Nx.real(Nx.sum(p, axes: [1]))) |> Enum.all?(&(&1 == 1))
      end
    end
  end

  describe "qr" do
    for type <- @types,
        {m, n} <- [{1, 1}, {2, 2}, {3, 3}, {5, 3}, {3, 5}, {7, 1}, {1, 7}, {33, 20}, {20, 33}] do
      test "of #{type}, #{m} by #{n}, is that of Nx" do
        a = matrix(unquote(type), {unquote(m), unquote(n)}, 3)
        {q, r} = run(&LinAlg.qr/1, [a])
        assert_orthonormal(q)
        assert_near(times(q, r), a)
        assert_near(r, Nx.triu(r), 0)

        if unquote(max(m, n)) <= 8 do
          {expected_q, expected_r} = LinAlg.qr(a)
          assert_near(q, expected_q, 16)
          assert_near(r, expected_r, 16)
        end
      end

      test "of #{type}, #{m} by #{n}, complete" do
        a = matrix(unquote(type), {unquote(m), unquote(n)}, 3)
        {q, r} = run(&LinAlg.qr(&1, mode: :complete), [a])
        assert {q.shape, r.shape} == {{unquote(m), unquote(m)}, {unquote(m), unquote(n)}}
        assert_orthonormal(q)
        assert_near(times(q, r), a)

        if unquote(max(m, n)) <= 8 do
          {expected_q, expected_r} = LinAlg.qr(a, mode: :complete)
          assert_near(q, expected_q, 16)
          assert_near(r, expected_r, 16)
        end
      end
    end

    test "keeps the signs of columns that are zero below the diagonal" do
      for rows <- [
            [[-3, 2, 1], [0, 1, 1], [0, 0, -1]],
            [[-3, 2, 1], [0, 1, 1], [0, 3, -1]],
            [[-3, 2], [0, -1], [0, 0]],
            [[0, 1], [0, 2]],
            [[-2]],
            [[-2, 1]]
          ] do
        a = tensor(rows, :f32)
        {q, r} = run(&LinAlg.qr/1, [a])
        {expected_q, expected_r} = LinAlg.qr(a)
        assert_near(q, expected_q)
        assert_near(r, expected_r)
      end
    end

    test "of matrices without full rank" do
      for type <- @types,
          rows <- [[[1, 1], [1, 1]], [[0, 0], [0, 0]], [[1, 2], [2, 4], [3, 6]]],
          mode <- [:reduced, :complete] do
        a = tensor(rows, type)
        {q, r} = run(&LinAlg.qr(&1, mode: mode), [a])
        assert_orthonormal(q)
        assert_near(times(q, r), a)
      end
    end

    test "of what is not finite is NaN" do
      for type <- @types, mode <- [:reduced, :complete] do
        a = tensor([[[1, 2], [3, 4], [5, 6]], [[1, 2], [:nan, 4], [5, 6]]], type)
        {q, r} = run(&LinAlg.qr(&1, mode: mode), [a])
        assert_near(times(q[0], r[0]), a[0])
        assert all_nan?(q[1]) and all_nan?(r[1])
      end
    end
  end

  describe "eigh" do
    # In a definition, Nx says that the value of one complex number is a real one.
    test "of one complex number" do
      expected = {tensor([Complex.new(3.0)], :c64), tensor([[Complex.new(1.0)]], :c64)}
      a = tensor([[Complex.new(3.0)]], :c64)
      assert_gives(&LinAlg.eigh/1, [a], expected, ways: [:eager])
    end

    for type <- @types, n <- @sizes, {type, n} != {:c64, 1} do
      test "of #{type}, #{n} rows" do
        a = hermitian(unquote(type), {unquote(n), unquote(n)})
        # Of a single complex number Nx has a real eigenvalue, in definitions only.
        ways = if unquote({type, n}) == {:c64, 1}, do: [:eager], else: ways()
        {values, vectors} = run_in(ways, &LinAlg.eigh/1, [a])
        assert {values.type, vectors.type} == {a.type, a.type}
        assert_orthonormal(vectors)
        assert_near(times(a, vectors), diagonal_times(vectors, values))
        sizes = values |> Nx.abs() |> Nx.to_flat_list()
        assert sizes == Enum.sort(sizes, :desc)
      end
    end

    test "is that of Nx where it is unique" do
      for n <- 1..6, seed <- 1..5 do
        a = hermitian(:f32, {n, n}, seed)
        {values, vectors} = run(&LinAlg.eigh/1, [a])
        {expected_values, expected_vectors} = LinAlg.eigh(a, eps: 1.0e-7)
        assert_near(values, expected_values, 16)
        assert_near(Nx.abs(vectors), Nx.abs(expected_vectors), 256)
      end
    end

    test "of batches and of what is not finite" do
      for type <- @types do
        a = tensor([[[2, 1], [1, 2]], [[:nan, 1], [1, 2]], [[2, 1], [1, :neg_infinity]]], type)
        {values, vectors} = run(&LinAlg.eigh/1, [a])
        assert_near(values[0], tensor([3, 1], type))
        assert_orthonormal(vectors[0])
        assert all_nan?(values[1..2]) and all_nan?(vectors[1..2])
      end
    end
  end

  describe "svd" do
    for type <- types([:f32, :f64]),
        {m, n} <- [{1, 1}, {2, 2}, {3, 3}, {5, 3}, {3, 5}, {7, 1}, {1, 7}, {33, 20}, {20, 33}] do
      test "of #{type}, #{m} by #{n}" do
        a = matrix(unquote(type), {unquote(m), unquote(n)}, 3)
        k = min(unquote(m), unquote(n))
        {u, s, vt} = run(&LinAlg.svd(&1, full_matrices?: false), [a])
        assert {u.shape, s.shape, vt.shape} == {{unquote(m), k}, {k}, {k, unquote(n)}}
        assert_orthonormal(u)
        assert_orthonormal(LinAlg.adjoint(vt))
        assert_near(u |> diagonal_times(s) |> times(vt), a)
        assert Nx.to_flat_list(s) == Enum.sort(Nx.to_flat_list(s), :desc)
        assert Nx.to_number(Nx.reduce_min(s)) >= 0

        {full_u, full_s, full_vt} = run(&LinAlg.svd/1, [a])

        assert {full_u.shape, full_vt.shape} ==
                 {{unquote(m), unquote(m)}, {unquote(n), unquote(n)}}

        assert_orthonormal(full_u)
        assert_orthonormal(LinAlg.adjoint(full_vt))
        assert_near(full_s, s)
        assert_near(full_u[[.., 0..(k - 1)]], u, 64)
        assert_near(full_vt[0..(k - 1)], vt, 64)
      end
    end

    test "is that of Nx where it is unique" do
      for shape <- [{2, 2}, {3, 2}, {2, 4}, {4, 4}] do
        a = matrix(:f32, shape, 2)
        {u, s, vt} = run(&LinAlg.svd(&1, full_matrices?: false), [a])
        {expected_u, expected_s, expected_vt} = LinAlg.svd(a, full_matrices?: false)
        # BinaryBackend iterates until 1.0e-4.
        assert_near(s, expected_s, 500)
        assert_near(Nx.abs(u), Nx.abs(expected_u), 500)
        assert_near(Nx.abs(vt), Nx.abs(expected_vt), 500)
      end
    end

    test "of matrices without full rank and of what is not finite" do
      for full <- [true, false], type <- types([:f32, :f64]) do
        a =
          tensor(
            [
              [[1, 2], [2, 4], [3, 6]],
              [[0, 0], [0, 0], [0, 0]],
              [[1, 2], [:nan, 4], [3, 6]],
              [[1, 2], [3, :infinity], [3, 6]]
            ],
            type
          )

        {u, s, vt} = run(&LinAlg.svd(&1, full_matrices?: full), [a])

        for i <- 0..1 do
          assert_orthonormal(u[i])
          assert_orthonormal(vt[i])
          assert_near(u[i][[.., 0..1]] |> diagonal_times(s[i]) |> times(vt[i]), a[i])
        end

        for x <- [u, s, vt], do: assert(all_nan?(x[2..3]))
      end
    end

    test "refuses complex numbers, as Nx does" do
      assert_raise ArgumentError, fn -> LinAlg.svd(mlx(square(:c64, 2))) end
    end
  end

  describe "solve" do
    for type <- @types, n <- @sizes do
      test "of #{type}, #{n} rows" do
        a =
          Nx.add(square(unquote(type), unquote(n)), Nx.eye(unquote(n)) |> Nx.multiply(unquote(n)))

        for b <- [
              matrix(unquote(type), {unquote(n)}, 5),
              matrix(unquote(type), {unquote(n), 3}, 5)
            ] do
          x = run(&LinAlg.solve/2, [a, b])
          assert x.type == b.type
          assert_near(Nx.dot(a, x), b, 4)
          if unquote(n) <= 8, do: assert_near(x, LinAlg.solve(a, b), 16)
        end
      end
    end

    test "of batches of matrices and of vectors" do
      a = Nx.add(matrix(:f32, {2, 3, 4, 4}, 1), Nx.multiply(4, Nx.eye({2, 3, 4, 4})))

      for shape <- [{2, 3, 4}, {2, 3, 4, 2}] do
        b = matrix(:f32, shape, 2)
        assert_near(run(&LinAlg.solve/2, [a, b]), LinAlg.solve(a, b), 16)
      end
    end

    test "of mixed types" do
      for {a, b, type} <- [
            {:s32, :f32, {:f, 32}},
            {:f32, :c64, {:c, 64}},
            {:u8, :s64, {:f, 32}},
            {:f64, :s8, {:f, 64}},
            {:f16, :u8, {:f, 16}}
          ] do
        a = Nx.add(square(a, 3), Nx.eye(3, type: a) |> Nx.multiply(tensor(20, a)))
        b = square(b, 3, 2)
        wide = if match?({_, 16}, type), do: {:f, 32}, else: type
        expected = LinAlg.solve(Nx.as_type(a, wide), Nx.as_type(b, wide)) |> Nx.as_type(type)
        assert_gives(&LinAlg.solve/2, [a, b], expected, ulps: 128, scale: 1.0)
      end
    end

    test "of singular matrices is refused" do
      for type <- @types, singular <- [[[1, 1], [1, 1]], [[0, 0], [0, 0]]] do
        a = tensor([[[2, 1], [1, 2]], singular, [[1, :nan], [1, 2]]], type)
        refuses(&LinAlg.solve/2, "solve", [a, tensor([[1, 2], [1, 2], [1, 2]], type)])
      end
    end

    test "of what is not finite is NaN" do
      for type <- @types do
        a = tensor([[[2, 1], [1, 2]], [[1, :nan], [1, 2]], [[:infinity, 1], [1, 2]]], type)
        x = run(&LinAlg.solve/2, [a, tensor([[1, 2], [1, 2], [1, 2]], type)])
        assert_near(x[0], tensor([0, 1], type))
        assert all_nan?(x[1..2])
      end
    end

    test "of a singular matrix in the branch not taken is not refused" do
      invert = &LinAlg.invert/1
      assert all_nan?(run(invert, [tensor([[1, 1], [1, 1]], :f32)]))
    end
  end

  describe "determinant" do
    for type <- [:u8, :s8, :s32, :u32, :s64, :u64, :f16, :bf16, :f32, :f64, :c64], n <- [2, 3] do
      test "of #{type}, #{n} rows, is that of Nx to the bit" do
        a = matrix(unquote(type), {4, unquote(n), unquote(n)}, 4)
        assert_same(&LinAlg.determinant/1, [a], ulps: 1, scale: 1.0)
      end
    end

    for type <- @types, n <- [1, 4, 5, 8, 12] do
      test "of #{type}, #{n} rows" do
        a = matrix(unquote(type), {2, unquote(n), unquote(n)}, 4)
        assert_same(&LinAlg.determinant/1, [a], ulps: 512, scale: 1.0)
      end
    end

    test "of large integers wraps" do
      a = tensor([[2_000_000_000, 3], [7, 2_000_000_000]], :s32)
      assert_same(&LinAlg.determinant/1, [a])
    end

    test "does not overflow on the way" do
      a = Nx.multiply(Nx.eye(4), tensor([1.0e30, 1.0e30, 1.0e-30, 1.0e-30], :f32))
      assert_same(&LinAlg.determinant/1, [a])
    end

    test "of singular matrices is zero, of what is not finite NaN" do
      a =
        Nx.stack([
          Nx.broadcast(tensor(1.0, :f32), {4, 4}),
          Nx.broadcast(tensor(:nan, :f32), {4, 4})
        ])

      assert [+0.0, :nan] = Nx.to_flat_list(run(&LinAlg.determinant/1, [a]))
    end
  end

  describe "halves" do
    for type <- @halves do
      test "of #{type} are computed wider" do
        a = definite(unquote(type), {4, 4})
        wide = Nx.as_type(a, :f32)

        functions =
          [&LinAlg.cholesky/1, &LinAlg.qr/1, &LinAlg.eigh/1, &LinAlg.svd/1] ++
            [&LinAlg.lu/1, &LinAlg.determinant/1]

        for fun <- functions do
          narrow = &Nx.as_type(&1, unquote(type))

          expected =
            run(
              fn wide -> wide |> fun.() |> tensors() |> Enum.map(narrow) |> List.to_tuple() end,
              [wide]
            )

          assert tensors(run(fun, [a])) == tensors(expected)
        end
      end
    end
  end

  describe "the rest of Nx.LinAlg" do
    test "adjoint" do
      for type <- [:s32 | @types], shape <- [{2, 3}, {2, 3, 4}] do
        assert_same(&LinAlg.adjoint/1, [matrix(type, shape, 1)])
      end
    end

    test "norm" do
      for type <- [:s32, :f16 | @types], ord <- [nil, :inf, :neg_inf, 0, 1, -1, 2, 3] do
        bounds = [ulps: 16, scale: 1.0]
        assert_same(&LinAlg.norm(&1, ord: ord), [matrix(type, {5}, 1)], bounds)
      end

      # Those that take singular values are as close as Nx's iteration gets.
      for type <- [:f32, :f64],
          ord <- [nil, :frobenius, :nuclear, :inf, :neg_inf, 1, -1, 2, -2] do
        iterated = if type == :f32, do: 2 ** 10, else: 2 ** 36
        bounds = if ord in [:nuclear, -2], do: [ulps: iterated, scale: 1.0], else: [ulps: 16]
        assert_same(&LinAlg.norm(&1, ord: ord), [matrix(type, {4, 3}, 1)], bounds)
      end

      for opts <- [[axes: [0]], [axes: [1], keep_axes: true]] do
        assert_same(&LinAlg.norm(&1, opts), [matrix(:f32, {4, 3}, 1)], ulps: 16)
      end
    end

    test "matrix_power" do
      for type <- [:s32, :u8, :s64], power <- [0, 1, 5, 12] do
        assert_same(&LinAlg.matrix_power(&1, power), [matrix(type, {2, 3, 3}, 1)])
      end

      for type <- @types, power <- [0, 3, -1, -2] do
        a = Nx.add(matrix(type, {2, 3, 3}, 1), Nx.multiply(3, Nx.eye(3)))
        assert_same(&LinAlg.matrix_power(&1, power), [a], ulps: 1024, scale: 1.0)
      end
    end

    test "invert" do
      for type <- @types, shape <- [{1, 1}, {3, 3}, {2, 4, 4}] do
        a = Nx.add(matrix(type, shape, 1), Nx.multiply(4, Nx.eye(shape)))
        assert_same(&LinAlg.invert/1, [a], ulps: 64, scale: 1.0)
      end

      for rows <- [[[1, 1], [1, 1]], [[0, 0], [0, 0]], [[:nan, 1], [0, 1]]] do
        assert_same(&LinAlg.invert/1, [tensor(rows, :f32)])
      end
    end

    test "pinv and least_squares" do
      for shape <- [{}, {3}, {3, 3}, {4, 2}, {2, 4}, {2, 3, 2}] do
        assert_same(&LinAlg.pinv/1, [matrix(:f32, shape, 1)], ulps: 2 ** 13, scale: 1.0)
      end

      assert_same(&LinAlg.pinv/1, [Nx.broadcast(tensor(0, :f32), {2, 3})])
      a = matrix(:f32, {5, 3}, 1)
      assert_same(&LinAlg.least_squares/2, [a, matrix(:f32, {5}, 2)], ulps: 2 ** 13, scale: 1.0)
    end

    test "matrix_rank" do
      assert_same(&LinAlg.matrix_rank/1, [tensor([[1, 2], [3, 4]], :f32)])
      # Nx.BinaryBackend divides by singular values of zero and raises.
      ranks = [
        {[[1, 1, 1], [1, 1, 1], [1, 2, 3]], 2},
        {[[1, 2], [2, 4]], 1},
        {[[0, 0], [0, 0]], 0}
      ]

      for {rows, rank} <- ranks do
        assert Nx.to_number(LinAlg.matrix_rank(mlx(tensor(rows, :f32)))) == rank
      end
    end

    test "vectorized tensors" do
      a = definite(:f32, {2, 3, 3}) |> Nx.vectorize(:x)
      b = matrix(:f32, {2, 3}, 1) |> Nx.vectorize(:x)

      for fun <- [&LinAlg.cholesky/1, &LinAlg.qr/1, &LinAlg.lu/1, &LinAlg.determinant/1] do
        assert_same(fun, [a], ulps: 256, scale: 1.0)
      end

      for fun <- [&LinAlg.solve/2, &LinAlg.triangular_solve/2, &Nx.dot/2] do
        assert_same(fun, [a, b], ulps: 256, scale: 1.0, signed_zero: false)
      end
    end
  end
end
