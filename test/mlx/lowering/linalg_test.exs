defmodule Mlx.Lowering.LinalgTest do
  use Mlx.LoweringCase, family: Mlx.Lowering.Linalg, async: true

  @shapes [
    {{3}, {3}},
    {{2, 3}, {3}},
    {{3}, {3, 2}},
    {{2, 3}, {3, 4}},
    {{1, 3}, {3, 1}},
    {{2, 4, 3}, {3, 2}},
    {{2, 3}, {5, 3, 4}}
  ]

  # Contracted axes and batch axes of either side.
  @axes [
    {{2, 3}, [0], [], {2, 4}, [0], []},
    {{2, 3}, [1], [], {4, 3}, [1], []},
    {{2, 3, 4}, [1, 2], [], {3, 4, 5}, [0, 1], []},
    {{2, 3, 4}, [2, 1], [], {3, 4, 5}, [1, 0], []},
    {{2, 3, 4}, [0, 2], [], {4, 2}, [1, 0], []},
    {{2, 3}, [0, 1], [], {2, 3}, [0, 1], []},
    {{2, 3}, [], [], {4}, [], []},
    {{5, 2, 3}, [2], [0], {5, 3, 4}, [1], [0]},
    {{5, 2, 3}, [1], [0], {5, 4, 2}, [2], [0]},
    {{5, 2, 3}, [1, 2], [0], {5, 2, 3}, [1, 2], [0]},
    {{2, 3, 4, 5}, [3], [0, 1], {2, 3, 5, 2}, [2], [0, 1]},
    {{5, 3}, [1], [0], {5, 3}, [1], [0]},
    {{3, 1, 2}, [], [0], {3, 4}, [], [0]},
    {{2, 3}, [-1], [], {3, 2}, [-2], []}
  ]

  for {a, b} <- pairs() do
    check(:dot, "of #{a} and #{b}", [small(a, {3, 2}), small(b, {2, 3})], scale: 4.0)
  end

  for type <- integers() do
    args = [sample(type, {3, 5}), sample(type, {5, 2}, from: 4)]
    check(:dot, "of #{type} keeps every bit", args)
  end

  for type <- [:f32, :s32, :c64], {a, b} <- @shapes do
    args = [sample(type, a), sample(type, b, from: 2)]
    check(:dot, "of #{type}#{inspect(a)} and #{inspect(b)}", args, scale: 16.0)
  end

  for type <- [:f32, :s32, :c64], {a, contract_a, batch_a, b, contract_b, batch_b} <- @axes do
    args = [sample(type, a), contract_a, batch_a, sample(type, b, from: 2), contract_b, batch_b]

    description =
      "of #{type}#{inspect(a)} along #{inspect(contract_a)} and #{inspect(b)} along " <>
        "#{inspect(contract_b)} with batches #{inspect(batch_a)}"

    # Without axes to add up over, a product of -0.0 stays one.
    check(:dot, description, args, scale: 16.0, signed_zero: false)
  end

  check(
    :dot,
    "keeps names",
    [
      sample(:f32, {2, 3}, names: [:x, :y]),
      sample(:f32, {3, 4}, names: [:a, :b])
    ],
    scale: 16.0
  )

  check(
    :dot,
    "by name",
    [
      sample(:f32, {2, 3}, names: [:x, :y]),
      [:x],
      sample(:f32, {2, 4}, names: [:x, :z]),
      [:x]
    ],
    scale: 16.0
  )

  check(:dot, "of what is not finite", [
    tensor([[:infinity, 1.0], [:nan, 1.0], [0.0, 2.0]], :f32),
    tensor([[1.0], [2.0]], :f32)
  ])

  check(:dot, "of larger matrices", [sample(:f32, {33, 65}), sample(:f32, {65, 17})],
    scale: 256.0
  )

  check(:dot, "of larger integers", [sample(:s64, {20, 30}), sample(:s64, {30, 20})])

  for type <- [:f16, :bf16] do
    halves = Nx.broadcast(tensor(0.5, type), {4096})
    check(:dot, "of many #{type}", [halves, halves])
  end

  test "dot of scalars is a product" do
    for {a, b} <- [{{}, {}}, {{}, {3}}, {{2, 3}, {}}] do
      assert_same(&Nx.dot/2, [sample(:s32, a), sample(:f32, b)])
    end
  end

  describe "dot of integers" do
    # Enough products for the engine to multiply limbs.
    for type <- integers() do
      test "of #{type}, all bits of them" do
        assert_same(&Nx.dot/2, [
          bits(unquote(type), {50, 40}, 1),
          bits(unquote(type), {40, 50}, 2)
        ])
      end

      test "of #{type} along a long axis" do
        assert_same(&Nx.dot/2, [
          bits(unquote(type), {3, 9000}, 1),
          bits(unquote(type), {9000, 4}, 2)
        ])
      end

      test "of #{type} in batches" do
        a = bits(unquote(type), {3, 40, 30}, 1)
        b = bits(unquote(type), {3, 50, 30}, 2)
        assert_same(&Nx.dot(&1, [2], [0], &2, [2], [0]), [a, b])
      end
    end

    for {a, b} <- integer_pairs(), a != b do
      test "of #{a} and #{b}" do
        assert_same(&Nx.dot/2, [bits(unquote(a), {50, 40}, 1), bits(unquote(b), {40, 50}, 2)])
        assert_same(&Nx.dot/2, [bits(unquote(a), {5, 4}, 1), bits(unquote(b), {4}, 2)])
      end
    end

    test "needs little memory" do
      a = bits(:s32, {700, 700}, 1) |> Nx.backend_copy(Mlx.Backend)
      Nx.to_binary(Nx.dot(a, a))
      # All products at once would be 1.4 GB.
      assert Nx.to_number(Nx.dot(a, a)[0][0]) == Nx.to_number(Nx.dot(a[0], a[[.., 0]]))
    end
  end

  describe "dot of halves" do
    # BinaryBackend rounds once, at the end.
    for type <- [:f16, :bf16], integer <- [:s32, :u64, :s8] do
      test "of #{type} and #{integer} that #{type} can't hold" do
        a = tensor([[70_000, 3], [-5, 40_001]] |> clip(unquote(integer)), unquote(integer))
        b = tensor([[0.5, 0.25], [0.125, -0.5]], unquote(type))
        assert_same(&Nx.dot/2, [a, b])
      end
    end
  end

  test "dot along an axis of size zero is zero" do
    for type <- Mlx.TestDevice.types([:f32, :bf16, :f64, :c64, :s8, :u64]),
        {rows, columns} <- [{3, 4}, {1, 4}, {3, 1}, {300, 300}] do
      zeros = Nx.dot(empty(type, {rows, 0}), empty(type, {0, columns}))
      assert zeros.shape == {rows, columns}
      assert zeros |> Nx.to_flat_list() |> Enum.all?(&(&1 == Nx.to_number(tensor(0, type))))
      assert Nx.to_binary(Nx.dot(empty(type, {0, 3}), mlx(sample(type, {3, 2})))) == ""

      assert Nx.to_binary(
               Nx.dot(empty(type, {0, 3, 2}), [2], [0], empty(type, {0, 4, 2}), [2], [0])
             ) == ""
    end
  end

  describe "dot of transposed tensors" do
    for type <- [:f32, :f16, :s64, :c64] do
      test "of #{type}" do
        heads = &(&1 |> Nx.transpose(axes: [0, 2, 1, 3]))
        args = [sample(unquote(type), {2, 5, 3, 4}), sample(unquote(type), {2, 6, 3, 4}, from: 2)]
        assert_same(&Nx.dot(heads.(&1), [3], [0, 1], heads.(&2), [3], [0, 1]), args, scale: 16.0)

        assert_same(
          &Nx.dot(Nx.transpose(&1), Nx.transpose(&2)),
          [sample(unquote(type), {4, 3}), sample(unquote(type), {5, 4})],
          scale: 16.0
        )
      end
    end
  end

  test "dot with weights as layers of other libraries have them, for a few rows and for many" do
    for {rows, inner, columns} <- [{2, 70, 32}, {11, 64, 96}, {32, 530, 64}, {77, 70, 96}] do
      args = [sample(:f32, {rows, inner}), sample(:f32, {columns, inner}, from: 3)]
      # Numbers grow with the length of a row, so the tolerance does.
      assert_same(&Nx.dot(&1, [1], &2, [1]), args, scale: 16.0 * inner)
      assert_same(&Nx.dot(&1, Nx.transpose(&2)), args, scale: 16.0 * inner)
    end
  end

  describe "triangular_solve" do
    @checked :triangular_solve

    for type <- [:f32, :f64, :c64, :f16, :s32],
        lower <- [true, false],
        transform <- [:none, :transpose, :conjugate],
        left <- [true, false] do
      test "of #{type}, lower: #{lower}, transform_a: #{transform}, left_side: #{left}" do
        opts = [lower: unquote(lower), transform_a: unquote(transform), left_side: unquote(left)]

        # What is in the other triangle is not read, though it is not zero.
        for n <- [1, 2, 5, 33] do
          a = system(unquote(type), {n, n})
          matrix = if unquote(left), do: {n, 3}, else: {3, n}

          for b <- [sample(unquote(type), {n}), sample(unquote(type), matrix)] do
            solve(a, b, opts)
          end
        end
      end
    end

    test "of batches of matrices and of vectors" do
      for left <- [true, false], lower <- [true, false], shape <- [{2, 3, 4}, {2, 3, 4, 4}] do
        a = system(:f32, {2, 3, 4, 4})
        solve(a, sample(:f32, shape), left_side: left, lower: lower)
      end

      solve(system(:f32, {2, 2, 2}), sample(:f32, {2, 2}), [])
      solve(system(:f32, {2, 2}), sample(:f32, {2, 2}), [])
    end

    test "of mixed types" do
      for {a, b} <- [{:s32, :f32}, {:f32, :c64}, {:u8, :s64}, {:f64, :s8}, {:bf16, :f16}] do
        solve(system(a, {4, 4}), sample(b, {4, 2}), [])
      end
    end

    test "of a singular matrix is refused" do
      for type <- Mlx.TestDevice.types([:f32, :f64, :c64]), lower <- [true, false] do
        a = tensor([[[2, 0], [0, 2]], [[2, 0], [0, 0]]], type)
        b = tensor([[1, 2], [1, 2]], type)
        fun = &Nx.LinAlg.triangular_solve(&1, &2, lower: lower)

        for run <- [fun, Nx.Defn.jit(fun, compiler: Mlx.Compiler)] do
          error = assert_raise Mlx.Error, fn -> Mlx.eval(run.(mlx(a), mlx(b))) end
          assert {error.kind, error.op} == {:value, "triangular_solve"}
        end
      end
    end

    test "spreads NaN only to what depends on it" do
      a = tensor([[1.0, 0.0, 0.0], [2.0, 4.0, 0.0], [:nan, 1.0, 1.0]], :f32)
      assert_same(&Nx.LinAlg.triangular_solve/2, [a, tensor([1.0, 2.0, 3.0], :f32)])
    end

    test "of an empty batch" do
      x = Nx.LinAlg.triangular_solve(empty(:f32, {0, 2, 2}), empty(:f32, {0, 2}))
      assert {x.shape, Nx.to_binary(x)} == {{0, 2}, ""}
    end
  end

  # Systems whose solutions are no larger than what is given.
  defp system(type, shape) do
    n = elem(shape, tuple_size(shape) - 1)
    a = Nx.as_type(sample(:f32, shape), :f32) |> Nx.divide(4 * n)
    a = if type == :c64, do: Nx.multiply(a, Complex.new(0.6, 0.8)), else: a
    a = if Nx.Type.integer?(Nx.Type.normalize!(type)), do: Nx.sign(a), else: a
    diagonal = Nx.iota(shape, axis: -1) |> Nx.remainder(3) |> Nx.add(1)
    Nx.eye(shape) |> Nx.select(diagonal, Nx.abs(a)) |> Nx.as_type(type)
  end

  defp solve(a, b, opts) do
    scale = b |> Nx.abs() |> Nx.reduce_max() |> Nx.to_number()

    assert_same(&Nx.LinAlg.triangular_solve(&1, &2, opts), [a, b],
      ulps: 8,
      scale: scale,
      signed_zero: false
    )
  end

  defp mlx(tensor), do: Nx.backend_copy(tensor, Mlx.Backend)

  # A binary of random bytes is as good as any other.
  defp bits(type, shape, seed) do
    :rand.seed(:exsss, seed)
    {_, size} = type = Nx.Type.normalize!(type)
    bytes = :rand.bytes(Tuple.product(shape) * div(size, 8))
    Nx.reshape(Nx.from_binary(bytes, type, backend: Nx.BinaryBackend), shape)
  end

  defp clip(rows, :s8), do: Enum.map(rows, fn row -> Enum.map(row, &rem(&1, 128)) end)
  defp clip(rows, :u64), do: Enum.map(rows, fn row -> Enum.map(row, &abs/1) end)
  defp clip(rows, _type), do: rows

  # Nx makes such tensors, but has no function for it.
  defp empty(type, shape) do
    Mlx.Backend.from_binary(Nx.template(shape, type), "", [])
  end
end
