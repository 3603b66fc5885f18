defmodule Mlx.Lowering.ConvolutionTest do
  use Mlx.LoweringCase, family: Mlx.Lowering.Convolution, async: true

  @image sample(:f32, {2, 3, 5, 6})
  @kernels sample(:f32, {4, 3, 2, 3})

  for type <- types() do
    check(:conv, "of #{type}", [sample(type, {1, 2, 4}), sample(type, {3, 2, 2})], scale: 16.0)
  end

  for {a, b} <- pairs() do
    check(:conv, "of #{a} and #{b}", [sample(a, {1, 2, 4}), sample(b, {3, 2, 2})], scale: 16.0)
  end

  for options <- [
        [],
        [padding: :same],
        [padding: [{1, 0}, {2, 3}]],
        [padding: [{-1, 1}, {0, -2}]],
        [strides: 2],
        [strides: [1, 2], padding: :same],
        [kernel_dilation: 2],
        [kernel_dilation: [3, 1]],
        [input_dilation: 2],
        [input_dilation: [1, 3], padding: [{-2, 0}, {1, -3}]],
        [
          input_dilation: [2, 1],
          kernel_dilation: [1, 2],
          strides: [3, 1],
          padding: [{2, 1}, {0, 2}]
        ],
        [output_permutation: [0, 3, 1, 2]],
        [output_permutation: [3, 2, 0, 1]],
        [batch_group_size: 2],
        [batch_group_size: 2, strides: 2, padding: :same]
      ] do
    check(:conv, "with #{inspect(options)}", [@image, @kernels, options], scale: 64.0)
  end

  for options <- [
        [],
        [strides: 2, padding: :same],
        [kernel_dilation: [2, 1]],
        [input_dilation: 2]
      ] do
    options = [feature_group_size: 3] ++ options
    args = [@image, sample(:f32, {6, 1, 2, 3}), options]
    check(:conv, "with #{inspect(options)}", args, scale: 64.0)
  end

  check(
    :conv,
    "of permuted axes",
    [
      Nx.transpose(@image, axes: [2, 3, 1, 0]),
      Nx.transpose(@kernels, axes: [3, 1, 0, 2]),
      [
        input_permutation: [3, 2, 0, 1],
        kernel_permutation: [2, 1, 3, 0],
        output_permutation: [0, 3, 1, 2]
      ]
    ],
    scale: 64.0
  )

  check(
    :conv,
    "by name",
    [
      sample(:f32, {2, 5, 6, 3}, names: [:n, :h, :w, :c]),
      sample(:f32, {2, 3, 3, 4}, names: [:kh, :kw, :in, :out]),
      [
        input_permutation: [:n, :c, :h, :w],
        kernel_permutation: [:out, :in, :kh, :kw],
        output_permutation: [:n, :c, :h, :w]
      ]
    ],
    scale: 64.0
  )

  check(
    :conv,
    "of vectorized",
    [
      Nx.vectorize(sample(:f32, {2, 2, 1, 5}), :v),
      sample(:f32, {3, 1, 2})
    ],
    scale: 64.0
  )

  for {image, kernels, options} <- [
        {{2, 2, 3, 4, 3}, {3, 2, 2, 2, 2}, []},
        {{2, 2, 3, 4, 3}, {3, 2, 2, 2, 2}, [padding: :same, strides: [1, 2, 1]]},
        {{1, 4, 3, 4, 3}, {6, 2, 2, 2, 2}, [feature_group_size: 2]},
        {{1, 4, 3, 4, 3}, {4, 1, 2, 2, 2}, [feature_group_size: 4, input_dilation: 2]},
        {{1, 2, 3, 2, 3, 2}, {2, 2, 2, 1, 2, 2}, [padding: :same]},
        {{2, 4, 3, 2, 3, 2}, {4, 2, 2, 1, 2, 2},
         [feature_group_size: 2, kernel_dilation: [2, 1, 1, 1]]}
      ],
      type <- [:f32, :f16, :f64, :c64] do
    args = [sample(type, image), sample(type, kernels), options]
    name = "of #{type} and shape #{inspect(image)} with #{inspect(options)}"
    check(:conv, name, args, scale: 128.0)
  end

  # MLX's own way writes past the end of a result that is smaller than the padding.
  for groups <- [1, 2], dilation <- [1, 2] do
    check(:conv, "padded by more than the result, #{groups} groups, #{dilation} apart", [
      sample(:f32, {1, 2, 1, 1}),
      sample(:f32, {2, div(2, groups), 5, 5}),
      [padding: [{8, 0}, {8, 0}], kernel_dilation: dilation, feature_group_size: groups]
    ])
  end

  # Single precision can't tell these from 2 ** 30.
  check(:conv, "keeps the precision of f64", [
    tensor([[[2.0 ** 30 + 0.25, 2.0 ** 30 - 0.25, 0.125]]], :f64),
    tensor([[[1.0, -1.0]]], :f64)
  ])

  check(:conv, "of floats that are not finite", [
    tensor([[[1.0, :infinity, 2.0, :nan, 3.0, :neg_infinity, 0.5, 1.0]]], :f32),
    tensor([[[1.0, 2.0]]], :f32)
  ])

  # Long enough for a sum of halves, one by one, to lose most of it.
  for type <- [:f16, :bf16] do
    args = [
      Nx.broadcast(tensor(0.5, type), {1, 1, 4096}),
      Nx.broadcast(tensor(0.5, type), {1, 1, 4000})
    ]

    check(:conv, "of many #{type}", args)
  end
end
