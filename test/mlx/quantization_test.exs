defmodule Mlx.QuantizationTest do
  use ExUnit.Case, async: true

  alias Mlx.Quantization
  alias Mlx.Quantization.Tensor

  doctest Mlx.Quantization
  doctest Mlx.Quantization.Tensor

  # Axon may be missing, where packages come from a folder.
  @compile {:no_warn_undefined, [Axon, Axon.ModelState]}

  defmodule Defn do
    import Nx.Defn

    defn(experts(x, weights, indices), do: Quantization.gather_mm(x, weights, indices))
    defn(product(x, weight), do: Quantization.quantized_matmul(x, weight))
    defn(plain(weight), do: Quantization.dequantize(weight) * 1)

    defn branch(x, w) do
      if Nx.sum(x) > 0, do: Nx.dot(x, w), else: -Nx.dot(x, w)
    end

    defn loop(x, w) do
      {x, _w, _at} =
        while {x, w, at = 0}, at < 3 do
          {Nx.dot(x, w) / 16, w, at + 1}
        end

      x
    end
  end

  @compiled [compiler: Mlx.Compiler]

  setup do
    Nx.default_backend(Mlx.Backend)
    :ok
  end

  defp numbers(shape, type \\ :f32) do
    Nx.iota({Tuple.product(shape)}, type: :s64)
    |> Nx.multiply(7919)
    |> Nx.add(13)
    |> Nx.remainder(1009)
    |> Nx.subtract(504)
    |> Nx.divide(256)
    |> Nx.as_type(type)
    |> Nx.reshape(shape)
  end

  defp distance(a, b), do: a |> Nx.subtract(b) |> Nx.abs() |> Nx.reduce_max() |> Nx.to_number()

  # The first bytes of the MD5 of what MLX's own Python package packs of these numbers,
  # of f32, f16 and bf16.
  @packed [
    {{:affine, 2, 32},
     [
       ~w[1fcc6d93f2b6ed3b 2019d5856b920dfc 98c500840e7c9a03],
       ~w[1fcc6d93f2b6ed3b 3a92cf80496c5616 cca5cf8b92ab4f67],
       ~w[9b01e52110bcad8c 6adf405cb8fb6a51 990725d0b244ccfc]
     ]},
    {{:affine, 2, 64},
     [
       ~w[d9c28b9c2526c7e6 06fdd54c76adaced 3eb786c87cde8776],
       ~w[d9c28b9c2526c7e6 202550b0c21532cb 367259e4c4a79c33],
       ~w[19f0f429c7cf99d7 7b96c99a50ab02d7 a49519594fba873a]
     ]},
    {{:affine, 2, 128},
     [
       ~w[c5246e80b95e052c a893830998b13aea 29b519e766bc0cc8],
       ~w[c5246e80b95e052c 5dd451dff672ddbb 4b3fde2007ecd7f6],
       ~w[ec3f99c078b63072 d3d8a82c64ce99fc 620aa5eed930d89d]
     ]},
    {{:affine, 3, 32},
     [
       ~w[e4338a54eecf5218 a5ccd0743cb2ab05 98c500840e7c9a03],
       ~w[e4338a54eecf5218 f853a4b9a0c37a7c cca5cf8b92ab4f67],
       ~w[221de2af718cdbfb a282a79aeda86075 990725d0b244ccfc]
     ]},
    {{:affine, 3, 64},
     [
       ~w[0cdc0b3cbce724f6 dd701b3aca12ee25 3eb786c87cde8776],
       ~w[0cdc0b3cbce724f6 3e8064d8aa55fde1 367259e4c4a79c33],
       ~w[380d8536982c1972 f13f70517de1d5a1 a49519594fba873a]
     ]},
    {{:affine, 3, 128},
     [
       ~w[b89e09494d6d634b 86a2cf853138301d 29b519e766bc0cc8],
       ~w[b89e09494d6d634b cdb0ca1c236ab52d 4b3fde2007ecd7f6],
       ~w[77a5c2570ad6b96a 352e71ef4f2b662e 620aa5eed930d89d]
     ]},
    {{:affine, 4, 32},
     [
       ~w[f41225d6035b0971 4aff4e5d7a90bf7c 98c500840e7c9a03],
       ~w[f41225d6035b0971 f329344f0fe4dd20 cca5cf8b92ab4f67],
       ~w[79cb3e81e130392b ad0d2555710186ca 990725d0b244ccfc]
     ]},
    {{:affine, 4, 64},
     [
       ~w[ae4cbfc9b72ee416 c74639dd7265a3fe 3eb786c87cde8776],
       ~w[ae4cbfc9b72ee416 e0863305884d7ebc 367259e4c4a79c33],
       ~w[ee9100a88c23041b 4bfc2bdf36245afd a49519594fba873a]
     ]},
    {{:affine, 4, 128},
     [
       ~w[72e87f943c33dd4e 5610a2afd8f07452 29b519e766bc0cc8],
       ~w[72e87f943c33dd4e 3b3c29d2b010f68f 4b3fde2007ecd7f6],
       ~w[6d2740b6a53da89b a60c35e888b17a65 620aa5eed930d89d]
     ]},
    {{:affine, 5, 32},
     [
       ~w[ec8527f4887570ed 9067e1f84b907807 98c500840e7c9a03],
       ~w[ec8527f4887570ed 5badefc372dd44db cca5cf8b92ab4f67],
       ~w[ba501d685dafa21f f5c8a31193fb1909 990725d0b244ccfc]
     ]},
    {{:affine, 5, 64},
     [
       ~w[5e2e41ee6dc24034 6f6fe71e91ab3431 3eb786c87cde8776],
       ~w[5e2e41ee6dc24034 13f026a854838c67 367259e4c4a79c33],
       ~w[45f0ba6374e76686 42bb7b6223aa4478 a49519594fba873a]
     ]},
    {{:affine, 5, 128},
     [
       ~w[6083902731c4a531 e86ffb92ee42846f 29b519e766bc0cc8],
       ~w[6083902731c4a531 2c70034bbde6a1ba 4b3fde2007ecd7f6],
       ~w[0ffd6f862d76d689 5fa0b846f49ce792 620aa5eed930d89d]
     ]},
    {{:affine, 6, 32},
     [
       ~w[6075fdee19a3cbe9 3418e74456b2e110 98c500840e7c9a03],
       ~w[6075fdee19a3cbe9 c1f6b178ed4cfb0b cca5cf8b92ab4f67],
       ~w[9ff65cbbac8828f4 7cf4d2f0e8a0056b 990725d0b244ccfc]
     ]},
    {{:affine, 6, 64},
     [
       ~w[81f5c85be29e3033 862854f5eb682fbf 3eb786c87cde8776],
       ~w[81f5c85be29e3033 12c74e7a855d4e40 367259e4c4a79c33],
       ~w[a7a9b26b99a2ddb4 626e7b1de2aa36f9 a49519594fba873a]
     ]},
    {{:affine, 6, 128},
     [
       ~w[0e5118c5e0607a41 b41af20988d98bdd 29b519e766bc0cc8],
       ~w[0e5118c5e0607a41 f3119f7564652579 4b3fde2007ecd7f6],
       ~w[ef77438825477dde 7b3e57613934f8a4 620aa5eed930d89d]
     ]},
    {{:affine, 8, 32},
     [
       ~w[cc03328096878746 aee24db8897a12fa 98c500840e7c9a03],
       ~w[cc03328096878746 ebcfc06a54eee587 cca5cf8b92ab4f67],
       ~w[3e152d67054ac6a0 5921fc8c74baa054 990725d0b244ccfc]
     ]},
    {{:affine, 8, 64},
     [
       ~w[677be7217f58aad5 c32df9b519afa8ee 3eb786c87cde8776],
       ~w[677be7217f58aad5 d3d937cee8d44239 367259e4c4a79c33],
       ~w[4ddf18b716f18a46 edc264c62e96300c a49519594fba873a]
     ]},
    {{:affine, 8, 128},
     [
       ~w[681bfa142afc6b22 77574dcf199a707a 29b519e766bc0cc8],
       ~w[681bfa142afc6b22 5fdada4659910a81 4b3fde2007ecd7f6],
       ~w[88c68105a5c3c961 7df6e330c90779c6 620aa5eed930d89d]
     ]},
    {{:mxfp4, 4, 32},
     [
       ~w[9f303c57c97eb240 be40030011e05282],
       ~w[9f303c57c97eb240 be40030011e05282],
       ~w[99332bf51159f06b be40030011e05282]
     ]},
    {{:mxfp8, 8, 32},
     [
       ~w[ddc23e4f50f51bf0 142f4ba9afc5aa4e],
       ~w[ddc23e4f50f51bf0 142f4ba9afc5aa4e],
       ~w[7e0cda16e17da6f6 142f4ba9afc5aa4e]
     ]},
    {{:nvfp4, 4, 16},
     [
       ~w[f28fa5805ade3fc4 19c8f691ffc7a742],
       ~w[f28fa5805ade3fc4 19c8f691ffc7a742],
       ~w[8a32b157a5269d75 19c8f691ffc7a742]
     ]}
  ]

  for {{mode, bits, size} = format, hashes} <- @packed do
    test "#{inspect(format)} has the bits that MLX gives" do
      for {type, hashes} <- Enum.zip([:f32, :f16, :bf16], unquote(hashes)) do
        opts = [mode: unquote(mode), bits: unquote(bits), group_size: unquote(size)]

        parts =
          {3, 256} |> numbers(type) |> Quantization.quantize(opts) |> Quantization.to_parts()

        got = for part <- Tuple.to_list(parts), do: part |> Nx.to_binary() |> hash()

        # What is halfway between two codes becomes another one on a GPU.
        if Mlx.TestDevice.device() == :gpu,
          do: assert(tl(got) == tl(hashes)),
          else: assert(got == hashes)
      end
    end
  end

  test "the formats are those" do
    assert Enum.sort(Quantization.formats()) == Enum.sort(Enum.map(@packed, &elem(&1, 0)))
  end

  defp hash(binary) do
    binary
    |> :erlang.md5()
    |> Base.encode16(case: :lower)
    |> binary_part(0, 16)
  end

  ## What is held

  test "a tensor that is quantized holds its parts and nothing else" do
    weight = Quantization.quantize(numbers({8, 128}))
    tensor = Nx.to_tensor(weight)
    assert %Nx.Tensor{shape: {8, 128}, type: {:f, 32}} = tensor
    assert %Mlx.Backend{ref: nil, deferred: {_node, refs}} = tensor.data
    assert refs == for(part <- Tensor.parts(weight), do: part.data.ref)

    for kept <- [
          Nx.transpose(tensor),
          Nx.as_type(tensor, :f16),
          Nx.transpose(Nx.transpose(tensor))
        ],
        do: assert(%Mlx.Backend{ref: nil} = kept.data)

    for made <- [
          Nx.add(tensor, 1),
          Nx.reshape(tensor, {1024}),
          tensor[0],
          Nx.as_type(tensor, :s32)
        ],
        do: assert(%Mlx.Backend{deferred: nil} = made.data)

    dense = Quantization.dequantize(weight)
    assert %Mlx.Backend{deferred: nil} = dense.data

    for {fun, name} <- [{&Nx.to_binary/1, "read"}, {&Nx.to_binary(&1, limit: 3), "read in part"}] do
      assert fun.(tensor) == fun.(dense), name
    end

    assert Nx.to_binary(Nx.transpose(tensor)) == Nx.to_binary(Nx.transpose(dense))
    assert inspect(tensor) == inspect(dense)
    assert Nx.to_binary(Nx.backend_copy(tensor, Nx.BinaryBackend)) == Nx.to_binary(dense)
    assert Nx.to_binary(Nx.backend_copy(tensor, Mlx.Backend)) == Nx.to_binary(dense)
    assert Mlx.eval(tensor) == tensor and Mlx.async_eval(tensor) == tensor
    assert {Mlx.shape(tensor), Mlx.dtype(tensor)} == {{8, 128}, :f32}
    assert_raise Mlx.Error, ~r"no values in memory", fn -> Nx.to_pointer(tensor, mode: :local) end
    assert_raise Mlx.Error, ~r"no values in memory", fn -> Nx.to_pointer(tensor, mode: :ipc) end
    assert Nx.backend_deallocate(tensor) == :ok
    assert Nx.backend_deallocate(weight.scales) == :already_deallocated
    assert_raise Mlx.Error, ~r"deallocated", fn -> Nx.to_binary(Nx.add(tensor, 1)) end
  end

  test "several quantized tensors in one operation" do
    a = Quantization.quantize(numbers({4, 64}))
    b = Quantization.quantize(numbers({8, 64}), mode: :mxfp8)
    [first, second] = for weight <- [a, b], do: Quantization.dequantize(weight)

    for {fun, args} <- [
          {&Nx.dot(&1, [1], &2, [1]), [a, b]},
          {&Nx.dot(&1, [1], &2, [1]), [a, a]},
          {&Nx.dot(Nx.to_tensor(&1), [1], Nx.transpose(Nx.to_tensor(&2)), [0]), [b, b]},
          {&Nx.add(Nx.to_tensor(&1)[0], Nx.to_tensor(&2)[1]), [a, b]},
          {&Nx.concatenate([Nx.to_tensor(&1), Nx.iota({1, 64}), Nx.to_tensor(&2)]), [a, b]}
        ] do
      dense = Enum.map(args, &if(&1 == a, do: first, else: second))
      expected = apply(fun, dense)
      assert distance(apply(fun, args), expected) < 1.0e-4
      assert distance(Nx.Defn.jit_apply(fun, args, @compiled), expected) < 1.0e-4
      assert distance(Nx.Defn.jit_apply(fun, args), expected) < 1.0e-4
    end
  end

  ## Compiled functions

  test "programs are kept for each form, not only for each shape of the parts" do
    # Of these the parts have the same shapes and types.
    weights = [
      Quantization.quantize(numbers({6, 128}), bits: 4, group_size: 64),
      Quantization.quantize(numbers({6, 64}), bits: 8, group_size: 32),
      Quantization.transpose(Quantization.quantize(numbers({6, 128}), bits: 4, group_size: 64))
    ]

    signatures = for w <- weights, do: for(part <- Tensor.parts(w), do: {part.shape, part.type})
    assert [_] = Enum.uniq(signatures)
    fun = fn w -> Nx.multiply(w, 1) end

    for weight <- weights ++ weights do
      got = Nx.Defn.jit_apply(fun, [weight], @compiled)
      assert Nx.to_binary(got) == Nx.to_binary(Quantization.dequantize(weight))
    end

    [four, eight, transposed] = weights

    for compiler <- [@compiled, [compiler: Nx.Defn.Evaluator]] do
      compiled = Nx.Defn.compile(fun, [Nx.to_template(four)], compiler)
      assert Nx.to_binary(compiled.(four)) == Nx.to_binary(Quantization.dequantize(four))

      for other <- [eight, transposed],
          do: assert_raise(ArgumentError, ~r"not compatible", fn -> compiled.(other) end)
    end
  end

  test "branches have the packed form, and loops unpack what is in their state" do
    weight = Quantization.quantize(numbers({64, 64}), axis: 0)
    x = numbers({1, 64})
    dense = Quantization.dequantize(weight)

    {branch, loop} = {&Defn.branch/2, &Defn.loop/2}

    for {fun, row} <- [{branch, "quantized_matmul"}, {loop, "dequantize"}] do
      assert distance(
               Nx.Defn.jit_apply(fun, [x, weight], @compiled),
               fun |> Nx.Defn.jit_apply([x, dense], @compiled)
             ) < 1.0e-3

      plan = inspect(Mlx.Compiler.program(fun, [x, weight]))
      assert plan =~ row
    end

    refute inspect(Mlx.Compiler.program(branch, [x, weight])) =~ "dequantize("
  end

  test "what a function without a compiler returns of one is an argument of compiled ones" do
    weight = Quantization.quantize(numbers({64, 64}), axis: 0)
    x = numbers({1, 64})
    packed = Nx.Defn.jit_apply(fn weight -> weight end, [weight], compiler: Nx.Defn.Evaluator)

    assert Nx.to_binary(Nx.Defn.jit_apply(&Nx.dot/2, [x, packed], @compiled)) ==
             Nx.to_binary(Nx.dot(x, Quantization.dequantize(weight)))
  end

  test "quantizing inside of a compiled function" do
    fun = fn x, w -> Nx.dot(x, Quantization.quantize(w, axis: 0, mode: :mxfp8)) end
    [x, w] = [numbers({2, 64}), numbers({64, 5})]
    assert Nx.to_binary(Nx.Defn.jit_apply(fun, [x, w], @compiled)) == Nx.to_binary(fun.(x, w))
    fun = fn w -> Quantization.quantize(w, bits: 5) end
    assert %Tensor{bits: 5} = weight = Nx.Defn.jit_apply(fun, [numbers({4, 64})], @compiled)
    assert Nx.to_binary(weight.packed) == Nx.to_binary(fun.(numbers({4, 64})).packed)
  end

  test "the functions in defn" do
    weights = Quantization.quantize(numbers({3, 5, 64}))
    [x, indices] = [numbers({2, 1, 64}), Nx.tensor([2, 0])]
    swapped = Quantization.transpose(weights)
    expected = Quantization.gather_mm(x, swapped, indices)

    for opts <- [@compiled, [compiler: Nx.Defn.Evaluator]] do
      jit = &Nx.Defn.jit_apply(&1, &2, opts)
      assert distance(jit.(&Defn.experts/3, [x, swapped, indices]), expected) == 0.0
      wide = numbers({3, 2, 64})

      assert distance(
               jit.(&Defn.product/2, [wide, swapped]),
               Quantization.quantized_matmul(wide, swapped)
             ) == 0.0

      assert Nx.to_binary(jit.(&Defn.plain/1, [weights])) ==
               Nx.to_binary(Quantization.dequantize(weights))
    end
  end

  ## Models

  defp model do
    Axon.input("ids", shape: {nil, 4})
    |> Axon.embedding(32, 64, name: "embedding")
    |> Axon.dense(128, activation: :relu, name: "hidden")
    |> Axon.flatten()
    |> Axon.dense(3, activation: :softmax, name: "out")
  end

  # Weights of which the packed ones are exactly the others.
  defp weights(model) do
    {init, _} = Axon.build(model, @compiled)
    state = init.(Nx.template({1, 4}, :s64), Axon.ModelState.empty())

    [packed, dense] =
      for fun <- [& &1, &Quantization.dequantize/1] do
        data =
          Map.new(state.data, fn {layer, parameters} ->
            axis = if layer == "embedding", do: 1, else: 0

            {layer,
             Map.new(parameters, fn
               {"kernel", kernel} -> {"kernel", fun.(Quantization.quantize(kernel, axis: axis))}
               other -> other
             end)}
          end)

        %{state | data: data}
      end

    {packed, dense}
  end

  @tag :axon
  test "Axon's layers take quantized kernels" do
    model = model()
    {packed, dense} = weights(model)
    ids = Nx.tensor([[1, 5, 31, 0], [2, 2, 7, 30]])
    expected = Axon.predict(model, dense, ids, @compiled)

    for opts <- [@compiled, [compiler: Nx.Defn.Evaluator]] do
      assert distance(Axon.predict(model, packed, ids, opts), expected) < 1.0e-5
    end

    {_, predict} = Axon.build(model, @compiled)
    plan = inspect(Mlx.Compiler.program(predict, [packed, ids]))
    assert length(String.split(plan, "quantized_matmul(")) == 3
    assert length(String.split(plan, "dequantize(")) == 2
  end

  @tag :axon
  test "a serving of quantized weights" do
    model = model()
    {packed, dense} = weights(model)
    {_, predict} = Axon.build(model)

    serving =
      fn opts ->
        predict =
          Nx.Defn.compile(predict, [Nx.to_template(packed), Nx.template({2, 4}, :s64)], opts)

        fn batch -> predict.(packed, Nx.Defn.jit_apply(& &1, [batch])) end
      end
      |> Nx.Serving.new(@compiled)
      |> Nx.Serving.batch_size(2)

    ids = Nx.tensor([[1, 5, 31, 0], [2, 2, 7, 30]], type: :s64)
    got = Nx.Serving.run(serving, Nx.Batch.concatenate([ids]))
    assert distance(got, Axon.predict(model, dense, ids, @compiled)) < 1.0e-5
  end

  test "numbers that are not finite end nothing" do
    for {mode, bits, size} <- Quantization.formats(),
        number <- [:nan, :infinity, :neg_infinity] do
      x = Nx.put_slice(numbers({2, 128}), [0, 3], Nx.tensor([[number]]))
      weight = Quantization.quantize(x, mode: mode, bits: bits, group_size: size)
      # Other groups know nothing of it.
      assert distance(Nx.dot(Nx.broadcast(1.0, {1, 128}), [1], weight, [1])[0][1], Nx.sum(x[1])) <
               40
    end
  end

  ## Refusals

  test "quantize/2 says what it can't do" do
    x = numbers({4, 64})

    for {tensor, opts, message} <- [
          {Nx.iota({4, 64}), [], "of f32, f16 and bf16, got: s32"},
          {Nx.iota({4, 64}, type: :f64, backend: Nx.BinaryBackend), [], "got: f64"},
          {x, [bits: 7],
           "there is no affine quantization of 7 bits in groups of 64, but 2 in 32"},
          {x, [group_size: 16], "of 4 bits in groups of 16"},
          {x, [mode: :mxfp4, bits: 8],
           "there is no mxfp4 quantization of 8 bits in groups of 32, but 4 in 32"},
          {x, [mode: :int4], ":mode is one of"},
          {x, [group_size: 128], "a multiple of 128 numbers, got: 64"},
          {numbers({4, 48}), [mode: :nvfp4],
           "groups of 16 lie has a multiple of 32 numbers, got: 48"},
          {numbers({64}), [], "at least two axes"},
          {numbers({2, 2, 64}), [axis: 0], ":axis is one of the last two"},
          {Nx.vectorize(numbers({2, 2, 64}), :x), [], "vectorized"},
          {x, [size: 3], "unknown keys"}
        ] do
      assert_raise ArgumentError, ~r/#{Regex.escape(message)}/, fn ->
        Quantization.quantize(tensor, opts)
      end
    end
  end

  test "from_parts/2 takes what fits together only" do
    {packed, scales, biases} =
      parts = {8, 128} |> numbers() |> Quantization.quantize() |> Quantization.to_parts()

    assert %{bits: 4, group_size: 64} = Quantization.from_parts(parts)
    assert %{bits: 4, group_size: 64} = Quantization.from_parts(parts, bits: 4)
    assert %{bits: 8, group_size: 32} = Quantization.from_parts(parts, bits: 8)
    assert %{bits: 8, group_size: 32} = Quantization.from_parts(parts, group_size: 32)
    assert %{bits: 2, group_size: 128} = Quantization.from_parts(parts, group_size: 128)

    for {parts, opts} <- [
          {parts, [bits: 4, group_size: 32]},
          {{packed, scales}, []},
          {{packed, scales, Nx.as_type(biases, :f16)}, []},
          {{packed, scales, biases[[0..3]]}, []},
          {{packed[[0..3]], scales, biases}, []},
          {{Nx.as_type(packed, :s32), scales, biases}, []},
          {{packed[0], scales[0], biases[0]}, []},
          {parts, [mode: :mxfp4]},
          {{packed, Nx.as_type(scales, :u8)}, [mode: :mxfp4]},
          {{packed, Nx.broadcast(Nx.u8(1), {8, 4})}, [mode: :mxfp4, type: :f64]}
        ] do
      assert_raise ArgumentError, fn -> Quantization.from_parts(parts, opts) end
    end
  end

  test "gather_mm/3 says what it can't do" do
    for {x, w, indices, message} <- [
          {numbers({64}), numbers({2, 64, 3}), Nx.tensor(0), "at least two axes"},
          {numbers({1, 64}), numbers({64, 3}), Nx.tensor(0), "{experts, inputs, outputs}"},
          {numbers({1, 32}), numbers({2, 64, 3}), Nx.tensor(0), "{experts, inputs, outputs}"},
          {numbers({1, 64}), numbers({2, 64, 3}), Nx.tensor(0.5), "indices are integers"}
        ] do
      assert_raise ArgumentError, ~r/#{Regex.escape(message)}/, fn ->
        Quantization.gather_mm(x, w, indices)
      end
    end
  end
end
