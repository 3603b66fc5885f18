defmodule Mlx.QuantizationTest do
  use ExUnit.Case, async: true

  alias Mlx.Quantization
  alias Mlx.Quantization.Tensor

  @moduletag timeout: 120_000

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

  @cpu {Mlx.Backend, device: :cpu}
  @compiled [compiler: Mlx.Compiler, device: :cpu]

  setup do
    Nx.default_backend(@cpu)
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

  # The first bytes of the SHA-256 of what MLX's own Python package packs of these numbers,
  # of f32, f16 and bf16.
  @packed [
    {{:affine, 2, 32},
     [
       ~w[ff17ec1960bb9968 115204ff68b1b8d0 3ec4bd4246a00e90],
       ~w[ff17ec1960bb9968 9faa3e5002ea0fc0 cc86808d85650d83],
       ~w[5eab3f0a048caced 959140141fdfd55d 5c48a75791333b35]
     ]},
    {{:affine, 2, 64},
     [
       ~w[d89a76dfde45fe8c 9f0aa254de4a0bdc 17d0650e408bd25b],
       ~w[d89a76dfde45fe8c 1a5ab2bc574629bd f5a8edde919455f5],
       ~w[876543330e535ea4 88e66e9c9bd2a81e 2e78345d616bd06a]
     ]},
    {{:affine, 2, 128},
     [
       ~w[a8bd606302063bde 6e3908a4755ea530 e2bd8b062db1b038],
       ~w[a8bd606302063bde 3a2ff57937404b2f 3b214388d0541f4d],
       ~w[2d206a91dd469fb0 aebaffc42726a1e3 dd6ce5367a71a6e2]
     ]},
    {{:affine, 3, 32},
     [
       ~w[9499c9061ab46f8a 5bd7e2cee0a978f5 3ec4bd4246a00e90],
       ~w[9499c9061ab46f8a c7da6f40cdfe0a87 cc86808d85650d83],
       ~w[6e21d5a4b8b19bf8 af956a9347ccafaa 5c48a75791333b35]
     ]},
    {{:affine, 3, 64},
     [
       ~w[9ae79299b5247c4a a5bc2101a8a07254 17d0650e408bd25b],
       ~w[9ae79299b5247c4a 6057ddc25c241107 f5a8edde919455f5],
       ~w[97478a688a8c26ae 0c1420145ef5fd73 2e78345d616bd06a]
     ]},
    {{:affine, 3, 128},
     [
       ~w[066be119a364b6cd 86b530875c2add43 e2bd8b062db1b038],
       ~w[066be119a364b6cd 9b0af3f3e96e833b 3b214388d0541f4d],
       ~w[56d30a00916bd046 b2c4df6cb78215ef dd6ce5367a71a6e2]
     ]},
    {{:affine, 4, 32},
     [
       ~w[f83c215da4cdf3e3 25fcfc86f1272148 3ec4bd4246a00e90],
       ~w[f83c215da4cdf3e3 1201c39b184fe6e8 cc86808d85650d83],
       ~w[6699254bef60e644 b0acfd272555679a 5c48a75791333b35]
     ]},
    {{:affine, 4, 64},
     [
       ~w[05a2ee5336b6e118 264f0a919d0d97c6 17d0650e408bd25b],
       ~w[05a2ee5336b6e118 23e801321f6ce056 f5a8edde919455f5],
       ~w[f5ea3924af4627cb 1fa4c2ed7149e634 2e78345d616bd06a]
     ]},
    {{:affine, 4, 128},
     [
       ~w[1f1cac192d4bde53 5d1d84db4ce01e4e e2bd8b062db1b038],
       ~w[1f1cac192d4bde53 b2fdd36336acdcac 3b214388d0541f4d],
       ~w[4f25d28088ef51d8 836994832d5714c4 dd6ce5367a71a6e2]
     ]},
    {{:affine, 5, 32},
     [
       ~w[95315bea62c5c700 138472cdb8635ac2 3ec4bd4246a00e90],
       ~w[95315bea62c5c700 f8ec2254e8832370 cc86808d85650d83],
       ~w[a9353a9adca9739a 410df21ac1f1894d 5c48a75791333b35]
     ]},
    {{:affine, 5, 64},
     [
       ~w[3888d660b3fead77 b5f8acdb0f22336b 17d0650e408bd25b],
       ~w[3888d660b3fead77 71e22bc6cf02b858 f5a8edde919455f5],
       ~w[4213bf7cf378b12d 1c16a9aa30cf8a12 2e78345d616bd06a]
     ]},
    {{:affine, 5, 128},
     [
       ~w[57bfcb4aad1431c1 cdf06f0001cb292b e2bd8b062db1b038],
       ~w[57bfcb4aad1431c1 0ad063331554406f 3b214388d0541f4d],
       ~w[1e3b9b4910aaeb60 4ba6bcf32402d199 dd6ce5367a71a6e2]
     ]},
    {{:affine, 6, 32},
     [
       ~w[2524c2fa4216c706 fc71f80c8538d9dc 3ec4bd4246a00e90],
       ~w[2524c2fa4216c706 13e00493282f3164 cc86808d85650d83],
       ~w[31e401fcd6475be9 1a934429fb82ce3f 5c48a75791333b35]
     ]},
    {{:affine, 6, 64},
     [
       ~w[1345305e2736aeb5 e00dfa9287f069e3 17d0650e408bd25b],
       ~w[1345305e2736aeb5 0738c4600bb7094a f5a8edde919455f5],
       ~w[f8d0a1660b69d1aa 00577b7a714146af 2e78345d616bd06a]
     ]},
    {{:affine, 6, 128},
     [
       ~w[dca4745ef0fc966a b3a2e88f20e72f3e e2bd8b062db1b038],
       ~w[dca4745ef0fc966a 5fb41d3e6515bc64 3b214388d0541f4d],
       ~w[c32992c926d9e64c 35254fb88d404f4a dd6ce5367a71a6e2]
     ]},
    {{:affine, 8, 32},
     [
       ~w[af4ef1eac93ae0af 574e77bdf4fe7f32 3ec4bd4246a00e90],
       ~w[af4ef1eac93ae0af 1e5c903e1828bf4a cc86808d85650d83],
       ~w[ef1c53b7c412f94c 2b5bbc169fb585b1 5c48a75791333b35]
     ]},
    {{:affine, 8, 64},
     [
       ~w[0bfda8a3b17dcea5 5f3d803d53bd6124 17d0650e408bd25b],
       ~w[0bfda8a3b17dcea5 f60d38855c0ed957 f5a8edde919455f5],
       ~w[bba0d1c1572298d9 dd414f048ed35165 2e78345d616bd06a]
     ]},
    {{:affine, 8, 128},
     [
       ~w[745037cc5ca71618 34c3457208e2ff9b e2bd8b062db1b038],
       ~w[745037cc5ca71618 b5456e8c39efd820 3b214388d0541f4d],
       ~w[5d9742a0e815ef9e fb93d5fd63d93fbd dd6ce5367a71a6e2]
     ]},
    {{:mxfp4, 4, 32},
     [
       ~w[4406f67beeac1326 fa7a4c927fd6b488],
       ~w[4406f67beeac1326 fa7a4c927fd6b488],
       ~w[94a7e704fd165c42 fa7a4c927fd6b488]
     ]},
    {{:mxfp8, 8, 32},
     [
       ~w[710a5e7811aa7dc5 a649dbb05965890c],
       ~w[710a5e7811aa7dc5 a649dbb05965890c],
       ~w[ddb824d5ed077fb7 a649dbb05965890c]
     ]},
    {{:nvfp4, 4, 16},
     [
       ~w[c2bd4fe9af667b5f d3bd35c465e6dfae],
       ~w[c2bd4fe9af667b5f d3bd35c465e6dfae],
       ~w[576039cd47296bbb d3bd35c465e6dfae]
     ]}
  ]

  for {{mode, bits, size} = format, hashes} <- @packed do
    test "#{inspect(format)} has the bits that MLX gives" do
      for {type, hashes} <- Enum.zip([:f32, :f16, :bf16], unquote(hashes)) do
        opts = [mode: unquote(mode), bits: unquote(bits), group_size: unquote(size)]

        parts =
          {3, 256} |> numbers(type) |> Quantization.quantize(opts) |> Quantization.to_parts()

        assert hashes ==
                 for(part <- Tuple.to_list(parts), do: part |> Nx.to_binary() |> hash())
      end
    end
  end

  test "the formats are those" do
    assert Enum.sort(Quantization.formats()) == Enum.sort(Enum.map(@packed, &elem(&1, 0)))
  end

  defp hash(binary) do
    binary
    |> then(&:crypto.hash(:sha256, &1))
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
    assert Nx.to_binary(Nx.backend_copy(tensor, @cpu)) == Nx.to_binary(dense)
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
          {Nx.as_type(x, :f64), [], "got: f64"},
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
