defmodule Mlx.Lowering.FFTTest do
  use Mlx.LoweringCase, family: Mlx.Lowering.FFT, async: true

  # What f64 and f32 round differently grows with the numbers that are summed.
  @close [scale: 16.0, signed_zero: false]

  @types types() -- [:f64]
  @lengths [1, 2, 3, 4, 5, 6, 7, 8, 16, 30, 37, 64, 100, 128]

  for op <- [:fft, :ifft] do
    for type <- @types -- [:s64, :u64, :s32, :u32] do
      check(op, "of #{type}", [small(type, {6}), []], @close)
      check(op, "of rows of #{type}", [small(type, {2, 3}), []], @close)
    end

    for type <- [:s32, :u32, :s64, :u64] do
      check(op, "of #{type}", [tensor([1, 5, 1000, 3], type), []], scale: 1000.0)
    end

    for length <- @lengths, length > 1 do
      check(op, "of #{length} numbers", [sample(:f32, {length})], scale: 64.0)
      check(op, "of #{length} complex numbers", [sample(:c64, {length})], scale: 64.0)
      check(op, "with length #{length}", [sample(:c64, {2, 9}), [length: length]], scale: 64.0)
    end

    # Nx.BinaryBackend takes another way from here on.
    check(op, "of 1024 numbers", [sample(:f32, {1024})], scale: 1024.0)
    check(op, "of 1100 numbers", [sample(:c64, {1100})], scale: 1024.0)

    check(op, "of one complex number", [sample(:c64, {1})])
    check(op, "to a power of two", [sample(:f32, {9}), [length: :power_of_two]], @close)
    check(op, "along the first axis", [sample(:c64, {4, 3}), [axis: 0]], @close)
    check(op, "along an axis to be cut", [sample(:c64, {5, 2}), [axis: 0, length: 3]], @close)
    check(op, "of what is small", [sample(:f32, {8}), [eps: 1.3]], @close)

    check(
      op,
      "of names",
      [sample(:f32, {4, 3}, names: [:x, :y]), [axis: :x, length: 5]],
      @close
    )

    check(op, "of vectorized", [Nx.vectorize(sample(:f32, {3, 4}), :x)], @close)
  end

  for axis <- 0..3 do
    # Nx.BinaryBackend mixes up the other axes of a middle axis.
    test "along axis #{axis} of four" do
      x = sample(:c64, {2, 3, 4, 5})
      order = Enum.to_list(0..3) -- [unquote(axis)]
      order = order ++ [unquote(axis)]
      back = for i <- 0..3, do: Enum.find_index(order, &(&1 == i))
      last = Nx.fft(Nx.transpose(x, axes: order), length: 6)
      fun = &Nx.fft(&1, axis: unquote(axis), length: 6)
      assert_gives(fun, [x], Nx.transpose(last, axes: back), @close)
    end
  end

  # Nx.BinaryBackend gives an empty binary for these.
  test "of one real number is that" do
    assert_gives(&Nx.fft/1, [tensor([3.0], :f32)], tensor([3.0], :c64))
    assert_gives(&Nx.ifft/1, [tensor([3], :u8)], tensor([3.0], :c64))
    assert_gives(&Nx.rfft/1, [tensor([3.0], :f32)], tensor([3.0], :c64))
  end

  test "of f64 raises, because there is no c128" do
    for fun <- [&Nx.fft/1, &Nx.ifft/1, &Nx.rfft/1] do
      error = assert_raise Mlx.Error, fn -> fun.(mlx(tensor([1.0, 2.0], :f64))) end
      assert error.kind == :type
    end
  end

  # Nx.BinaryBackend raises on these.
  test "of what is not finite is not finite" do
    for number <- [:nan, :infinity, :neg_infinity] do
      x = Nx.fft(mlx(tensor([1.0, number, 2.0], :f32)))
      assert Nx.to_flat_list(Nx.real(x)) |> Enum.all?(&is_atom/1)
    end
  end

  describe "fft2 and ifft2" do
    for fun <- [:fft2, :ifft2], type <- [:u8, :s32, :f16, :f32, :c64] do
      test "#{fun} of #{type}" do
        assert_same(&apply(Nx, unquote(fun), [&1]), [small(unquote(type), {2, 3})], @close)
      end
    end

    for fun <- [:fft2, :ifft2] do
      test "#{fun} with lengths and axes" do
        x = sample(:c64, {4, 5})
        assert_same(&apply(Nx, unquote(fun), [&1, [lengths: [3, 8]]]), [x], @close)
        assert_same(&apply(Nx, unquote(fun), [&1, [axes: [1, 0]]]), [x], @close)
        assert_same(&apply(Nx, unquote(fun), [&1, [eps: 2.3]]), [x], @close)
        lengths = [:power_of_two, :power_of_two]
        assert_same(&apply(Nx, unquote(fun), [&1, [lengths: lengths]]), [x], @close)
        vectorized = Nx.vectorize(sample(:f32, {2, 4, 3}), :x)
        assert_same(&apply(Nx, unquote(fun), [&1]), [vectorized], @close)
      end
    end
  end

  describe "rfft and irfft" do
    for length <- @lengths, length > 2 do
      test "rfft of #{length} numbers" do
        assert_same(&Nx.rfft/1, [sample(:f32, {unquote(length)})], scale: 64.0)
        assert_same(&Nx.rfft(&1, length: unquote(length)), [sample(:s8, {2, 9})], scale: 64.0)
      end

      test "irfft to #{length} numbers" do
        x = sample(:c64, {2, 9})
        assert_same(&Nx.irfft(&1, length: unquote(length)), [x], scale: 64.0)
      end
    end

    test "along an axis" do
      assert_same(&Nx.rfft(&1, axis: 0), [sample(:f32, {6, 3})], @close)
      assert_same(&Nx.irfft(&1, axis: 0, length: 7), [sample(:c64, {4, 3})], @close)
    end

    test "of real numbers" do
      assert_same(&Nx.irfft/1, [sample(:f32, {5})], @close)
      assert_same(&Nx.irfft/1, [sample(:s16, {5})], scale: 32768.0)
    end

    test "of names and vectorized tensors" do
      x = sample(:f32, {4, 6}, names: [:x, :y])
      assert_same(&Nx.rfft(&1, axis: :x), [x], @close)
      assert_same(&Nx.irfft(&1, axis: :x), [x], @close)
      assert_same(&Nx.rfft/1, [Nx.vectorize(x, :x)], @close)
      assert_same(&Nx.irfft/1, [Nx.vectorize(x, :x)], @close)
    end

    # Nx's own definition can't slice the nothing that is mirrored.
    test "irfft to one and two numbers" do
      x = tensor([3.0, 1.0], :f32)
      assert_gives(&Nx.irfft/1, [x], tensor([2.0, 1.0], :f32), ways: [:eager])
      assert_gives(&Nx.irfft(&1, length: 1), [x], tensor([3.0], :f32), ways: [:eager])
    end

    # Nx declares f16, but Nx's own definition gives f32.
    test "irfft of f16 is f16" do
      x = tensor([1.0, 2.0, 3.0], :f16)
      assert_gives(&Nx.irfft/1, [x], Nx.as_type(Nx.irfft(x), :f16), ways: [:eager])
    end

    test "irfft to no numbers raises" do
      assert_raise Mlx.Error, fn -> Nx.to_binary(Nx.irfft(mlx(tensor([1.0], :f32)))) end
    end
  end

  defp mlx(tensor), do: Nx.backend_copy(tensor, Mlx.Backend)
end
