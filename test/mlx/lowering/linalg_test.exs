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
end
