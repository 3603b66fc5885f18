defmodule Mlx.Lowering.ReductionTest do
  use Mlx.LoweringCase, family: Mlx.Lowering.Reduction, async: true

  @options [
    [],
    [axes: [0]],
    [axes: [1]],
    [axes: [-1]],
    [axes: [0, 2]],
    [axes: [2, 0, 1]],
    [axes: [1], keep_axes: true],
    [axes: [0, 1], keep_axes: true],
    [keep_axes: true]
  ]

  @not_finite [
    [1.0, :infinity, 2.0, :infinity],
    [:neg_infinity, 1.0, :neg_infinity, 0.5],
    [1.0, :nan, 2.0, 3.0],
    [:infinity, 1.0, :neg_infinity, 2.0],
    [:nan, :infinity, :nan, 0.0]
  ]

  for op <- [:sum, :product], type <- types() do
    check(op, "of #{type}", [small(type)], scale: 1.0)
    check(op, "of #{type} along an axis", [small(type), [axes: [0]]], scale: 1.0)
  end

  for op <- [:sum, :product], type <- integers() do
    check(op, "wraps in the result's type of #{type}", [sample(type), [axes: [1]]])
  end

  for op <- [:sum, :product, :reduce_max, :reduce_min, :all, :any], options <- @options do
    args = [sample(:f32, {2, 3, 4}), options]
    check(op, "with #{inspect(options)}", args, scale: 16.0, signed_zero: false)
  end

  for op <- [:reduce_max, :reduce_min], type <- reals() do
    check(op, "of #{type}", [sample(type)])
    check(op, "of #{type} along an axis", [sample(type), [axes: [1]]], signed_zero: false)
  end

  for op <- [:reduce_max, :reduce_min, :sum, :product], type <- floats() do
    check(op, "of #{type} that are not finite", [tensor(@not_finite, type), [axes: [1]]])
  end

  for op <- [:all, :any], type <- reals() do
    zeros = [[0, 1, 2], [0, 0, 0], [3, 1, 1]]
    check(op, "of #{type}", [tensor(zeros, type), [axes: [1]]])
    check(op, "of all of #{type}", [tensor(zeros, type)])
  end

  check(:any, "of imaginary numbers", [tensor([Complex.new(0.0, 1.0), Complex.new(0.0)], :c64)])
  check(:all, "of imaginary numbers", [tensor([Complex.new(0.0, 1.0), Complex.new(1.0)], :c64)])
  check(:all, "takes NaN for true", [tensor([:nan, :infinity, 1.0], :f32)])

  for op <- [:argmax, :argmin], tie_break <- [:low, :high] do
    for type <- reals() do
      x = tensor([[3, 1, 3, 1], [2, 2, 0, 0], [1, 5, 5, 1]], type)
      check(op, "of #{type} with the #{tie_break} of equals", [x, [tie_break: tie_break]])
      check(op, "of #{type} along an axis, #{tie_break}", [x, [axis: 1, tie_break: tie_break]])
    end

    for options <- [[axis: 0], [axis: -1], [axis: 1, keep_axis: true], [keep_axis: true]] do
      args = [sample(:s32, {2, 3, 4}), [tie_break: tie_break] ++ options]
      check(op, "with #{inspect(options)}, #{tie_break}", args)
    end

    for type <- floats() do
      args = [tensor(@not_finite, type), [axis: 1, tie_break: tie_break]]
      check(op, "of #{type} that are not finite, #{tie_break}", args)
      check(op, "of all of #{type}, not finite, #{tie_break}", [hd(args), tl(hd(tl(args)))])
    end
  end

  check(:argmax, "in another type", [sample(:f32), [type: :s64]])
  check(:sum, "of a scalar", [tensor(3, :u8)])
  check(:reduce_max, "of a scalar", [tensor(-3.5, :f32)])
  check(:argmin, "of a scalar", [tensor(3, :s8)])
  check(:sum, "by name", [sample(:f32, {2, 3}, names: [:x, :y]), [axes: [:x]]])

  check(:reduce_min, "by name", [
    sample(:f32, {2, 3}, names: [:x, :y]),
    [axes: [:y], keep_axes: true]
  ])

  check(:argmax, "by name", [sample(:f32, {2, 3}, names: [:x, :y]), [axis: :y]])

  for op <- [:sum, :reduce_max, :argmin], axis <- [0, 1], type <- [:s8, :f32] do
    axes = if op == :argmin, do: [axis: axis], else: [axes: [axis]]
    check(op, "of a larger matrix of #{type} along #{axis}", [sample(type, {70, 33}), axes])
  end

  # Long enough for a sum in the operand's type, one by one, to lose most of it.
  for type <- [:f16, :bf16] do
    halves = Nx.broadcast(tensor(0.5, type), {4096})
    check(:sum, "of many #{type}", [halves])
    check(:sum, "of many #{type} along an axis", [Nx.reshape(halves, {2048, 2}), [axes: [0]]])
  end

  check(:sum, "of many f32", [Nx.broadcast(tensor(0.1, :f32), {200_000})], ulps: 128)
end
