defmodule Mlx.GradientCases.Shapes do
  @moduledoc false

  # Operations that move, reduce and slide.

  import Mlx.Samples, only: [tensor: 2]

  @close [ulps: 64, scale: 4.0, signed_zero: false]
  @matrix [[0.5, -1.25, 2.0, 3.5], [1.5, -0.75, 0.25, -2.0], [0.75, 1.0, -3.0, 1.25]]
  @cumulative [
    {Nx.Block.CumulativeSum, &Nx.cumulative_sum/2},
    {Nx.Block.CumulativeProduct, &Nx.cumulative_product/2},
    {Nx.Block.CumulativeMax, &Nx.cumulative_max/2},
    {Nx.Block.CumulativeMin, &Nx.cumulative_min/2}
  ]

  def all do
    moved() ++ reduced() ++ indexed() ++ windows() ++ convolutions() ++ sorted() ++ transforms()
  end

  defp moved do
    for {op, description, fun} <- [
          {:reshape, "", &Nx.reshape(&1, {2, 6})},
          {:squeeze, "", &Nx.squeeze(Nx.reshape(&1, {3, 1, 4}))},
          {:transpose, "", &Nx.transpose/1},
          {:transpose, "of three axes",
           &Nx.transpose(Nx.reshape(&1, {3, 2, 2}), axes: [2, 0, 1])},
          {:reverse, "", &Nx.reverse(&1, axes: [1])},
          {:broadcast, "", &Nx.broadcast(&1, {2, 3, 4})},
          {:broadcast, "along other axes", &Nx.broadcast(&1, {3, 2, 4}, axes: [0, 2])},
          {:broadcast, "of ones", &Nx.broadcast(Nx.reshape(&1, {1, 12}), {3, 12})},
          {:concatenate, "", &Nx.concatenate([&1, Nx.multiply(&1, 3)], axis: 1)},
          {:stack, "", &Nx.stack([&1, Nx.multiply(&1, 3)], axis: 1)},
          {:broadcast, "in a tile", &Nx.tile(&1, [2, 2])}
        ] do
      row(op, description, fn x -> x |> fun.() |> curved() end, [matrix()])
    end ++
      for config <- [{1, 2, 0}, {-1, 0, 0}, {0, -1, 2}, {2, -2, 1}] do
        fun = &Nx.sin(Nx.pad(&1, &2, [config, {0, 1, 0}]))
        row(:pad, inspect(config), fun, [matrix(), tensor(0.75, :f32)])
      end ++
      [as_type(), bitcast()]
  end

  # So that where an element goes to makes a difference.
  defp curved(x), do: Nx.multiply(x, Nx.sin(x))

  defp as_type do
    fun = &curved(Nx.as_type(&1, :f64))
    row(:as_type, "", fun, [matrix()], types: [:f32], f64: true, step: 2.0 ** -7)
  end

  defp bitcast do
    {{:bitcast, ""}, &Nx.bitcast(&1, :s32), [tensor([0.5, 2.0], :f32)],
     types: [:f32], nx: "Nx takes the bits of a number for the number"}
  end

  defp reduced do
    for op <- [:sum, :product, :reduce_max, :reduce_min],
        options <- [[], [axes: [0]], [axes: [1], keep_axes: true], [axes: [-1]]] do
      row(op, inspect(options), &Nx.sin(apply(Nx, op, [&1, options])), [matrix()])
    end ++
      [
        row(:product, "of a zero", &Nx.product(&1, axes: [1]), [
          tensor([[0.0, 2.0, 3.0], [0.0, 0.0, 3.0]], :f32)
        ]),
        row(:sum, "of a mean and a variance", &Nx.add(Nx.mean(&1), Nx.variance(&1)), [matrix()]),
        row(:all, "", &Nx.all(&1, axes: [1]), [matrix()]),
        row(:any, "", &Nx.any(&1, axes: [0]), [matrix()]),
        row(:argmax, "", &Nx.argmax(&1, axis: 1), [matrix()]),
        row(:argmin, "", &Nx.argmin/1, [matrix()])
      ] ++
      for {block, fun} <- @cumulative, options <- [[], [axis: 1], [axis: 1, reverse: true]] do
        row(block, inspect(options), &curved(fun.(&1, options)), [matrix()])
      end
  end

  defp indexed do
    start = tensor(1, :s32)
    places = tensor([[0, 1], [2, 3], [0, 1]], :s32)
    rows = tensor([[0], [2]], :s32)
    part = tensor([[1.5, -0.5], [2.0, 0.25]], :f32)
    updates = tensor([[0.5, 1.5, -1.0, 2.0], [3.0, -0.25, 1.0, 0.75]], :f32)

    for {op, description, fun, args} <- [
          {:slice, "", &Nx.slice(&1, [1, 0], [2, 2]), []},
          {:slice, "in strides", &Nx.slice(&1, [0, 0], [3, 4], strides: [2, 3]), []},
          {:slice, "at a tensor", &Nx.slice(&1, [&2, 1], [2, 2]), [start]},
          {:slice, "that is moved inside", &Nx.slice(&1, [&2, 9], [3, 2]), [start]},
          {:put_slice, "", &Nx.put_slice(&1, [1, 2], &2), [part]},
          {:put_slice, "at a tensor", &Nx.put_slice(&1, [&3, &3], &2), [part, start]},
          {:gather, "", &Nx.gather/2, [places]},
          {:gather, "of rows", &Nx.gather/2, [rows]},
          {:gather, "along the last axis", &Nx.gather(&1, &2, axes: [1]), [rows]},
          {:indexed_add, "", &Nx.indexed_add/3, [places, tensor([1.5, -0.5, 2.0], :f32)]},
          {:indexed_add, "of rows", &Nx.indexed_add/3, [rows, updates]},
          {:indexed_put, "", &Nx.indexed_put/3, [rows, updates]},
          {:indexed_put, "of elements", &Nx.indexed_put/3,
           [tensor([[0, 1], [2, 3]], :s32), tensor([1.5, -0.5], :f32)]},
          {Nx.Block.Take, "", &Nx.take(&1, &2, axis: 1), [tensor([1, 1, 3], :s32)]},
          {Nx.Block.TakeAlongAxis, "", &Nx.take_along_axis(&1, &2, axis: 0),
           [tensor([[0, 2, 2, 1]], :s32)]}
        ] do
      fun = fn args -> curved(apply(fun, args)) end
      row(op, description, of_list(fun, 1 + length(args)), [matrix() | args])
    end
  end

  defp of_list(fun, 1), do: &fun.([&1])
  defp of_list(fun, 2), do: &fun.([&1, &2])
  defp of_list(fun, 3), do: &fun.([&1, &2, &3])

  defp windows do
    # Nx has gradients of dilated windows for sums only.
    for op <- [:window_sum, :window_max, :window_min],
        options <- [
          [],
          [padding: :same],
          [strides: 2],
          [padding: [{1, 0}, {0, 2}], strides: [1, 2]],
          [window_dilations: 2]
        ],
        op == :window_sum or options[:window_dilations] == nil do
      fun = &curved(apply(Nx, op, [&1, {2, 2}, options]))
      # Nx.BinaryBackend adds up what it scatters in single precision.
      coarse = if op == :window_sum, do: [], else: [close_f64: [ulps: 2 ** 34, scale: 4.0]]
      row(op, inspect(options), fun, [distinct({4, 5})], coarse ++ padding(op, options[:padding]))
    end ++
      for {op, by} <- [window_scatter_max: 1, window_scatter_min: -1],
          padding <- [:valid, :same] do
        options = [strides: [2, 2], padding: padding]
        shape = Nx.shape(Nx.window_sum(distinct({4, 5}), {2, 2}, options))
        fun = &curved(apply(Nx, op, [Nx.multiply(&1, by), &2, &3, {2, 2}, options]))
        args = [distinct({4, 5}), distinct(shape), tensor(0.0, :f32)]
        row(op, inspect(padding), fun, args)
      end
  end

  defp padding(:window_min, padding) when padding != nil,
    do: [nx: "Nx pads with 0 where it looks for the smallest, and that may be the 0"]

  defp padding(_op, _padding), do: []

  # No equals, between which a maximum would have to choose.
  defp distinct(shape) do
    size = Tuple.product(shape)
    numbers = for i <- 0..(size - 1), do: rem(i * 7, size) / 8 - 0.75
    numbers |> tensor(:f32) |> Nx.reshape(shape)
  end

  defp convolutions do
    image = distinct({2, 2, 4, 5})

    for {kernels, options} <- [
          {{2, 2, 2, 3}, []},
          {{2, 2, 2, 2}, [padding: :same, strides: 2]},
          {{2, 2, 2, 2}, [padding: [{2, 1}, {0, 3}], kernel_dilation: [1, 2]]},
          {{1, 2, 2, 2}, [input_dilation: [2, 1], strides: [1, 2]]},
          {{2, 2, 2, 2}, [batch_group_size: 2]},
          {{4, 1, 2, 3}, [feature_group_size: 2]},
          {{2, 1, 2, 2}, [feature_group_size: 2, padding: :same, strides: 2]},
          {{2, 2, 2, 2}, [input_permutation: [0, 1, 3, 2], output_permutation: [1, 0, 3, 2]]}
        ] do
      fun = &Nx.sin(Nx.conv(&1, &2, options))
      row(:conv, inspect(options), fun, [image, distinct(kernels)])
    end
  end

  defp sorted do
    for axis <- 0..1, direction <- [:asc, :desc] do
      options = [axis: axis, direction: direction]
      row(:sort, inspect(options), &curved(Nx.sort(&1, options)), [distinct({3, 4})])
    end ++
      [
        row(:argsort, "", &Nx.argsort/1, [distinct({3, 4})]),
        row(Nx.Block.TopK, "", &curved(elem(Nx.top_k(&1, k: 2), 0)), [distinct({3, 4})])
      ]
  end

  # Of f64 they would be c128. They are linear, so that any step is short enough.
  defp transforms do
    for {op, fun} <- [
          {:fft, &Nx.fft/1},
          {:ifft, &Nx.ifft/1},
          {Nx.Block.FFT2, &Nx.fft2/1},
          {Nx.Block.IFFT2, &Nx.ifft2/1},
          {Nx.Block.RFFT, &Nx.rfft/1},
          {Nx.Block.IRFFT, &Nx.irfft/1}
        ] do
      row(op, "", fun, [matrix()], types: [:f32], step: 0.25)
    end
  end

  defp matrix, do: tensor(@matrix, :f32)

  defp row(op, description, fun, args, options \\ []),
    do: {{op, description}, fun, args, [close: @close] ++ options}
end
