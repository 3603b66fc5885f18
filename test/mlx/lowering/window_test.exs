defmodule Mlx.Lowering.WindowTest do
  use Mlx.LoweringCase, family: Mlx.Lowering.Window, async: true

  @reductions [:window_sum, :window_product, :window_max, :window_min]
  @scatters [:window_scatter_max, :window_scatter_min]

  @options [
    [],
    [padding: :same],
    [padding: [{1, 0}, {2, 1}]],
    [padding: [{-1, 0}, {0, -1}]],
    [strides: [2, 1]],
    [strides: 2, padding: :same],
    [window_dilations: 2],
    [window_dilations: [1, 2], strides: [2, 2], padding: [{0, 1}, {1, 1}]]
  ]

  for op <- @reductions do
    types = if op in [:window_sum, :window_product], do: types(), else: reals()

    for type <- types do
      check(op, "of #{type}", [small(type, {2, 3}), {2, 2}], scale: 4.0)
      check(op, "wraps #{type}", [sample(type, {7, 5}), {2, 2}, [strides: 2]], scale: 8.0)
    end

    for options <- @options do
      check(op, "with #{inspect(options)}", [sample(:s32, {5, 7}), {2, 3}, options])

      check(op, "of f32 with #{inspect(options)}", [sample(:f32, {5, 7}), {2, 3}, options],
        scale: 8.0
      )
    end

    for type <- floats() do
      check(op, "of #{type} that are not finite", [specials(type), {2}])
      check(op, "of all of #{type} that are not finite", [specials(type), {6}])
    end

    # Long windows are put together from shorter ones.
    for size <- [7, 8, 9, 16, 40], dilation <- [1, 2] do
      options = [window_dilations: dilation]
      x = sample(:s64, {100})
      check(op, "of #{size} elements, #{dilation} apart", [x, {size}, options])
    end

    check(op, "of one element", [sample(:s32), {1, 1}])
    check(op, "of one element in strides", [sample(:s32), {1, 1}, [strides: 2]])
    check(op, "of everything", [small(:s64), {3, 2}])

    check(op, "in four dimensions", [
      sample(:s32, {2, 3, 4, 3}),
      {1, 2, 2, 3},
      [strides: [1, 1, 2, 1]]
    ])

    check(op, "keeps names", [sample(:s32, {3, 3}, names: [:x, :y]), {2, 2}])
    check(op, "of vectorized", [Nx.vectorize(sample(:s32, {2, 3, 4}), :v), {2, 2}])
  end

  for type <- floats() do
    halves = Nx.broadcast(tensor(0.5, type), {4096})
    check(:window_sum, "of many #{type}", [halves, {4000}])
  end

  for op <- @scatters do
    x = [[7, 2, 5, 3, 10, 2], [3, 8, 9, 3, 4, 2], [1, 5, 7, 5, 6, 1], [0, 6, 2, 7, 2, 8]]

    for type <- reals(), source <- [:s32, :f32] do
      args = [tensor(x, type), tensor([[2, 6], [3, 1]], source), 0, {2, 3}, [strides: [2, 3]]]
      check(op, "of #{type} with a source of #{source}", args)
    end

    # The last of equals wins, a NaN only if it is first, and so may the padding.
    equals = tensor([1.0, 1.0, :nan, 2.0, 2.0, :nan, 3.0, 0.5, -1.0, -2.0], :f32)
    source = tensor([1, 2, 3, 4, 5, 6, 7, 8, 9, 10], :f32)
    check(op, "of equals and NaN", [equals, Nx.slice(source, [0], [9]), 0, {2}])
    check(op, "of padding", [equals, source, 0, {3}, [padding: :same]])
    check(op, "into an initial value", [tensor([1, 2], :s32), tensor([3], :u8), 5, {2}])
    options = [padding: [{-1, -1}]]

    check(op, "beside what is cut off", [
      tensor([5, 1, 2, 7], :s32),
      tensor([3], :s32),
      4,
      {2},
      options
    ])

    check(op, "into a fraction", [tensor([1, 2], :s32), tensor([3], :s32), 0.5, {2}])
  end

  check(:window_scatter_max, "of vectorized", [
    Nx.vectorize(sample(:s32, {2, 2, 4}), :v),
    tensor([[5, 6]], :s32),
    0,
    {2, 2},
    [strides: 2]
  ])

  check(:window_reduce, "with an operation", [sample(:s32, {4, 5}), 0, {2, 2}, &Nx.add/2])
  check(:window_reduce, "padded", [sample(:s32, {4, 5}), 3, {2, 2}, [padding: :same], &Nx.max/2])

  for options <- @options do
    x = sample(:s32, {5, 7})

    check(:window_reduce, "in order, #{inspect(options)}", [
      x,
      1,
      {2, 3},
      options,
      &__MODULE__.weighted/2
    ])
  end

  @doc false
  # Neither associative nor commutative.
  def weighted(x, acc), do: Nx.subtract(Nx.multiply(acc, 2), x)

  test "a window as long as its axis is a reduction in the type of the window" do
    x = Nx.broadcast(tensor(100, :u8), {4, 3})
    for op <- @reductions, do: assert_same(&apply(Nx, op, [&1, {4, 1}]), [x])
  end
end
