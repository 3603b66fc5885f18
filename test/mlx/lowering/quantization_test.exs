defmodule Mlx.Lowering.QuantizationTest do
  use ExUnit.Case, async: true

  import Mlx.Oracle
  import Mlx.Samples, only: [sample: 2]

  alias Mlx.{Quantization, TestDevice}
  alias Mlx.Quantization.Tensor

  @floats [:f32, :f16, :bf16]
  @formats Quantization.formats()
  @some [{:affine, 4, 64}, {:affine, 3, 32}, {:mxfp4, 4, 32}, {:mxfp8, 8, 32}, {:nvfp4, 4, 16}]

  # A half keeps so much of what it is rounded to, whatever cancels.
  defp close(:f32), do: [ulps: 40, scale: 40.0]
  defp close(_half), do: [ulps: 2, scale: 40.0]

  defp opts({mode, bits, size}), do: [mode: mode, bits: bits, group_size: size]

  defp weight(shape, type, format, opts \\ []) do
    rank = tuple_size(shape)
    size = Tuple.product(shape)

    Nx.iota({size}, type: :s64, backend: Nx.BinaryBackend)
    |> Nx.multiply(7919)
    |> Nx.remainder(1009)
    |> Nx.subtract(504)
    |> Nx.divide(256)
    |> Nx.as_type(type)
    |> Nx.reshape(shape)
    |> Nx.backend_transfer(Mlx.Backend)
    |> Quantization.quantize(opts(format) ++ Keyword.merge([axis: rank - 1], opts))
  end

  # The quantized tensor again from its parts, which are arguments of the test's functions.
  defp rebuilt(tensor), do: &Tensor.put_parts(tensor, &1)
  defp parts(tensor), do: tensor |> Tensor.parts() |> Enum.map(&Nx.backend_copy/1)

  defp plain(tensor), do: tensor |> Quantization.dequantize() |> Nx.backend_copy()

  # Packed and unpacked give the same in each way, and so do parts on `Nx.BinaryBackend`.
  defp assert_product(fun, x, weight, opts) do
    build = rebuilt(weight)
    packed = fn x, parts -> fun.(x, parts |> build.() |> Nx.to_tensor()) end
    assert_gives(packed, [x, parts(weight)], fun.(x, plain(weight)), opts)
    rows(packed, [x, parts(weight)])
  end

  # The rows of the program that a function becomes.
  defp rows(fun, args) do
    {fun, tensors} = of_tensors(fun, args)
    plan = inspect(Mlx.Compiler.program(fun, [tensors]))
    ~r/= (\w+)\(/ |> Regex.scan(plan) |> Enum.map(&List.last/1)
  end

  ## Dequantizing, bit for bit

  for format <- @formats, type <- @floats do
    test "#{inspect(format)} of #{type} has the values that its bits say" do
      weight = weight({3, 256}, unquote(type), unquote(Macro.escape(format)))
      got = Quantization.dequantize(weight)
      assert_values(got, values(weight))
      # Nx cuts off what does not fit in bf16.
      if unquote(type) != :bf16, do: assert_values(got, Nx.to_binary(composed(weight)))
    end
  end

  # A GPU rounds once where others do twice, of numbers up to 4.
  defp assert_values(got, expected) do
    if TestDevice.device() == :gpu do
      expected = Nx.from_binary(expected, got.type, backend: Nx.BinaryBackend)
      assert_equivalent(Nx.flatten(got), expected, ulps: 1, scale: 4.0)
    else
      assert Nx.to_binary(got) == expected
    end
  end

  defp composed(weight) do
    Nx.with_default_backend(Nx.BinaryBackend, fn ->
      weight |> Nx.backend_copy() |> Quantization.dequantize()
    end)
  end

  defp values(%{mode: mode, type: type, bits: bits, group_size: size} = weight) do
    rows = elem(weight.packed.shape, 0)
    bytes = div(Nx.byte_size(weight.packed), rows)
    scales = Nx.to_flat_list(weight.scales)
    biases = if weight.biases, do: Nx.to_flat_list(weight.biases), else: scales
    groups = div(length(scales), rows)
    packed = Nx.to_binary(weight.packed)

    for row <- 0..(rows - 1), at <- 0..(groups * size - 1), into: <<>> do
      <<integer::little-size(bytes)-unit(8)>> = binary_part(packed, row * bytes, bytes)
      code = integer |> Bitwise.>>>(at * bits) |> rem(2 ** bits)
      group = row * groups + div(at, size)
      value(mode, code, Enum.at(scales, group), Enum.at(biases, group), type)
    end
  end

  # Products and sums of two numbers of a type are exact as f64.
  defp value(:affine, code, scale, bias, type),
    do: rounded(number(rounded(code * scale, type), type) + bias, type)

  defp value(:nvfp4, code, scale, _, type), do: rounded(small(code, 4) * small(scale, 8), type)

  defp value(:mxfp4, code, scale, _, type),
    do: rounded(small(code, 4) * 2.0 ** (scale - 127), type)

  defp value(:mxfp8, code, scale, _, type),
    do: rounded(small(code, 8) * 2.0 ** (scale - 127), type)

  # Floats with 1 bit of fraction and a bias of 1, and with 3 and 7.
  defp small(code, bits) do
    {fraction, bias} = if bits == 4, do: {1, 1}, else: {3, 7}
    sign = if code >= 2 ** (bits - 1), do: -1.0, else: 1.0
    code = rem(code, 2 ** (bits - 1))
    {exponent, digits} = {div(code, 2 ** fraction), rem(code, 2 ** fraction) / 2 ** fraction}

    if exponent == 0,
      do: sign * digits * 2.0 ** (1 - bias),
      else: sign * (1 + digits) * 2.0 ** (exponent - bias)
  end

  defp rounded(number, {:f, bits}), do: <<number::float-native-size(bits)>>

  defp rounded(number, {:bf, 16}) do
    <<bits::32>> = <<number::float-32>>
    odd = bits |> Bitwise.>>>(16) |> rem(2)
    <<Bitwise.>>>(bits + 0x7FFF + odd, 16)::native-16>>
  end

  defp number(bytes, {:f, bits}) do
    <<number::float-native-size(bits)>> = bytes
    number
  end

  defp number(<<bits::native-16>>, {:bf, 16}) do
    <<number::float-32>> = <<bits::16, 0::16>>
    number
  end

  ## Products

  for format <- @formats, axis <- [0, 1] do
    test "a product with #{inspect(format)} whose groups lie along axis #{axis} stays packed" do
      format = unquote(Macro.escape(format))
      shape = if unquote(axis) == 0, do: {128, 5}, else: {5, 128}
      weight = weight(shape, :f32, format, axis: unquote(axis))

      for rows <- [1, 3, 9] do
        x = sample(:f32, {rows, elem(shape, 0)})
        assert assert_product(&Nx.dot/2, x, weight, close(:f32)) == ["quantized_matmul"]
      end
    end
  end

  for format <- @some, type <- [:f16, :bf16] do
    test "a product with #{inspect(format)} of #{type} is added up in f32" do
      weight = weight({7, 256}, unquote(type), unquote(Macro.escape(format)))

      for shape <- [{256}, {1, 256}, {6, 256}, {2, 1, 3, 256}] do
        fun = &Nx.dot(&1, [-1], &2, [1])
        x = sample(unquote(type), shape)
        assert_product(fun, x, weight, close(unquote(type)))
      end
    end
  end

  test "operands of any rank and order" do
    weight = weight({6, 128}, :f32, {:affine, 4, 64})
    other = Quantization.transpose(weight)

    for {fun, weight, shape} <- [
          {&Nx.dot/2, other, {128}},
          {&Nx.dot/2, other, {2, 3, 128}},
          {&Nx.dot(&1, [1], &2, [1]), weight, {2, 128, 3}},
          {&Nx.dot(&1, [0], &2, [0]), weight, {6, 2, 1}},
          {&Nx.dot(&2, &1), weight, {128}},
          {&Nx.dot(&2, [1], &1, [1]), weight, {2, 128, 3}},
          {&Nx.dot(&2, [0], &1, [1]), weight, {4, 6}},
          {&Nx.dot(&1, Nx.transpose(&2)), weight, {3, 128}},
          {&Nx.dot(&1, Nx.transpose(Nx.transpose(&2))), other, {3, 128}}
        ] do
      rows = assert_product(fun, sample(:f32, shape), weight, close(:f32))
      assert "quantized_matmul" in rows
      refute "dequantize" in rows
    end
  end

  test "batches of matrices" do
    for transposed <- [false, true], rows <- [1, 7] do
      weight = weight({3, 5, 64}, :f32, {:affine, 8, 32})
      weight = if transposed, do: Quantization.transpose(weight), else: weight
      axis = if transposed, do: 1, else: 2
      fun = &Nx.dot(&1, [2], [0], &2, [axis], [0])

      assert assert_product(fun, sample(:f32, {3, rows, 64}), weight, close(:f32)) == [
               "quantized_matmul"
             ]
    end
  end

  test "other types than those of the weight" do
    weight = weight({5, 64}, :f16, {:affine, 4, 64}, axis: 1)
    fun = &Nx.dot(&1, [1], &2, [1])

    for {type, scale} <- [f16: 40.0, bf16: 40.0, u8: 2000.0] do
      close = [ulps: 2, scale: scale]
      assert "quantized_matmul" in assert_product(fun, sample(type, {2, 64}), weight, close)
    end

    # In f32 the numbers are not rounded to f16 first.
    close = [ulps: 2 ** 13, scale: 80.0]
    assert "quantized_matmul" in assert_product(fun, sample(:f32, {2, 64}), weight, close)

    cast = &Nx.dot(&1, [1], Nx.as_type(&2, :bf16), [1])
    rows = assert_product(cast, sample(:bf16, {2, 64}), weight, close(:bf16))
    assert "quantized_matmul" in rows and "dequantize" not in rows
  end

  @tag :f64
  test "f64 is multiplied by what is dequantized" do
    weight = weight({5, 64}, :f16, {:affine, 4, 64}, axis: 1)
    rows = assert_product(&Nx.dot(&1, [1], &2, [1]), sample(:f64, {2, 64}), weight, close(:f16))
    assert "dequantize" in rows
  end

  test "products that need the numbers have them" do
    weight = weight({4, 6, 64}, :f32, {:affine, 4, 64})
    x = sample(:f32, {4, 64})

    for fun <- [
          &Nx.dot(&1, [1], &2, [2]),
          &Nx.dot(&1, [0, 1], &2, [0, 2]),
          &Nx.dot(Nx.vectorize(&1, :x), [0], &2, [2])
        ] do
      assert "dequantize" in assert_product(fun, x, weight, close(:f32))
    end
  end

  ## Everything else

  for format <- @some do
    test "rows of #{inspect(format)} are looked up packed" do
      weight = weight({9, 64}, :bf16, unquote(Macro.escape(format)))
      indices = Nx.tensor([[3, 0], [8, 100]], backend: Nx.BinaryBackend)
      build = rebuilt(weight)
      expected = Nx.take(plain(weight), Nx.min(indices, 8))
      fun = fn parts, indices -> Nx.take(build.(parts), indices) end
      assert_gives(fun, [parts(weight), indices], expected, ulps: 0)
      rows = rows(fun, [parts(weight), indices])

      assert List.last(rows) == "dequantize" and
               Enum.count(rows, &(&1 == "take")) == length(parts(weight))
    end
  end

  test "operations that need the numbers have them" do
    weight = weight({4, 64}, :f32, {:affine, 5, 32})
    build = rebuilt(weight)

    for fun <- [
          &Nx.add(&1, 1),
          &Nx.sum(&1, axes: [0]),
          &Nx.reshape(&1, {2, 128}),
          &Nx.transpose/1,
          &Nx.as_type(&1, :f16),
          &Nx.as_type(&1, :s32),
          & &1[[1..2, 3..9]],
          &Nx.take(&1, Nx.tensor([3, 1], backend: Nx.BinaryBackend), axis: 1),
          &Nx.select(Nx.greater(&1, 0), &1, 0),
          &Nx.broadcast(&1, {2, 4, 64}),
          &Nx.LinAlg.norm/1
        ] do
      assert_gives(
        fn parts -> parts |> build.() |> Nx.to_tensor() |> fun.() end,
        [parts(weight)],
        fun.(plain(weight))
      )
    end
  end

  ## Chosen matrices

  for {format, close} <- [{nil, :f32} | Enum.map(@some, &{&1, :f32})],
      transposed <- [false, true] do
    test "chosen matrices of #{inspect(format)}, transposed: #{transposed}" do
      format = unquote(Macro.escape(format))
      weight = weight({4, 64, 128}, :f32, format || {:affine, 8, 32})
      weight = if unquote(transposed), do: Quantization.transpose(weight), else: weight
      inputs = weight |> Tensor.shape() |> elem(1)
      build = rebuilt(weight)

      for {batch, indices} <- [
            {[5], [0, 3, 1, 1, 2]},
            {[2, 1], [[0, 3], [9, -1]]},
            {[1], [2, 0]},
            {[], 3}
          ] do
        x = sample(:f32, List.to_tuple(batch ++ [3, inputs]))
        indices = Nx.tensor(indices, backend: Nx.BinaryBackend)
        dense = plain(weight)
        expected = Quantization.gather_mm(x, dense, Nx.clip(indices, 0, 3))

        if format do
          fun = fn x, parts, indices -> Quantization.gather_mm(x, build.(parts), indices) end
          args = [x, parts(weight), indices]
          assert_gives(fun, args, expected, close(unquote(close)))
          assert "gather_qmm" in rows(fun, args)
          refute "dequantize" in rows(fun, args)
        else
          args = [x, dense, indices]
          assert_gives(&Quantization.gather_mm/3, args, expected, close(unquote(close)))
          assert "gather_mm" in rows(&Quantization.gather_mm/3, args)
        end
      end
    end
  end

  test "chosen matrices of halves and of several types" do
    for {x, w, out} <- [
          {:f16, :f16, :f16},
          {:bf16, :f32, :f32},
          {:s32, :f16, :f16},
          {:f32, :s8, :f32}
        ] do
      args = [
        sample(x, {2, 3, 8}),
        sample(w, {4, 8, 5}),
        Nx.tensor([3, 1], backend: Nx.BinaryBackend)
      ]

      expected = apply(&Quantization.gather_mm/3, args)
      assert expected.type == Nx.Type.normalize!(out)
      assert_gives(&Quantization.gather_mm/3, args, expected, close(out))
    end
  end

  ## Gradients

  test "gradients of products with packed matrices are such products" do
    weight = weight({6, 64}, :f32, {:affine, 4, 64})
    build = rebuilt(weight)
    x = sample(:f32, {3, 64})
    loss = fn x, w -> x |> Nx.dot([1], w, [1]) |> Nx.sin() |> Nx.sum() end
    grad = fn x, w -> Nx.Defn.grad(x, &loss.(&1, w)) end
    expected = Nx.Defn.jit(grad, compiler: Nx.Defn.Evaluator).(x, plain(weight))
    fun = fn x, parts -> grad.(x, build.(parts)) end

    assert_gives(
      fun,
      [x, parts(weight)],
      expected,
      [ways: [compiled: Mlx.Compiler]] ++ close(:f32)
    )

    rows = rows(fun, [x, parts(weight)])
    assert Enum.count(rows, &(&1 == "quantized_matmul")) == 2
    refute "dequantize" in rows
  end

  test "gradients of products with chosen matrices" do
    weight = weight({3, 64, 32}, :f32, {:affine, 8, 32})
    build = rebuilt(weight)
    indices = Nx.tensor([2, 0], backend: Nx.BinaryBackend)
    x = sample(:f32, {2, 3, 64})
    loss = fn x, w, indices -> x |> Quantization.gather_mm(w, indices) |> Nx.sin() |> Nx.sum() end
    grad = fn x, w, indices -> Nx.Defn.grad(x, &loss.(&1, w, indices)) end
    expected = Nx.Defn.jit(grad, compiler: Nx.Defn.Evaluator).(x, plain(weight), indices)
    fun = fn x, parts, indices -> grad.(x, build.(parts), indices) end
    args = [x, parts(weight), indices]
    assert_gives(fun, args, expected, [ways: [compiled: Mlx.Compiler]] ++ close(:f32))
  end

  ## Quantizing

  for format <- @formats, type <- [:f32, :f16] do
    test "#{inspect(format)} of #{type} is packed the same everywhere" do
      x = sample(unquote(type), {2, 3, 128})
      opts = opts(unquote(Macro.escape(format)))

      if TestDevice.device() == :gpu do
        assert_as_near(x, opts)
      else
        fun = fn x -> x |> Quantization.quantize(opts) |> Quantization.to_parts() end
        assert_same(fun, [x], ulps: 0)
      end
    end
  end

  # What is halfway between two codes becomes another one on a GPU, which is as near.
  defp assert_as_near(x, opts) do
    distance = fn backend ->
      weight = x |> Nx.backend_copy(backend) |> Quantization.quantize(opts)
      unpacked = Nx.with_default_backend(Nx.BinaryBackend, fn -> plain(weight) end)
      unpacked |> Nx.subtract(x) |> Nx.abs()
    end

    expected = distance.(Nx.BinaryBackend)
    assert_equivalent(Nx.backend_copy(distance.(Mlx.Backend), Mlx.Backend), expected, scale: 8.0)
  end
end
