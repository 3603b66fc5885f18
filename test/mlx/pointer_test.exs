defmodule Mlx.PointerTest do
  use ExUnit.Case, async: true
  import Mlx.Oracle
  import Mlx.Samples
  alias Mlx.Backend

  # Types whose values lie in memory as Nx has them.
  @plain Mlx.TestDevice.types(types())
  @narrow [:f8, :f8_e4m3fn, :u2, :u4, :s2, :s4]

  defp mlx(tensor), do: Nx.backend_copy(tensor, Mlx.Backend)

  # Addresses are of memory that the host sees, which that of an NVIDIA GPU is not.
  defp host(tensor), do: Nx.backend_copy(tensor, {Backend, device: :cpu})

  defp narrow(type), do: tensor([1, 0, 1, 1, 0, 1, 0], type)

  defp from(pointer, owner, type \\ nil, shape \\ nil, opts \\ []) do
    type = type || Nx.type(owner)
    copy = Nx.from_pointer(Mlx.Backend, pointer, type, shape || Nx.shape(owner), opts)
    # Used after the copy, so that the garbage collector leaves the owner alone.
    assert %Backend{} = owner.data
    copy
  end

  describe ":local" do
    test "points to the values in row order" do
      for type <- @plain do
        expected = sample(type, {4, 5})
        tensor = host(expected)
        pointer = Nx.to_pointer(tensor)
        assert %Nx.Pointer{kind: :local, handle: nil} = pointer
        assert pointer.data_size == byte_size(Nx.to_binary(expected))
        assert_equivalent(from(pointer, tensor), expected)

        turned = Nx.transpose(tensor)
        assert_equivalent(from(Nx.to_pointer(turned), turned), Nx.transpose(expected))
        part = tensor[[1..2, 1..3]]
        assert_equivalent(from(Nx.to_pointer(part), part), expected[[1..2, 1..3]])
      end
    end

    test "of what is not computed yet computes it" do
      x = host(sample(:f32, {50, 50}))
      sum = Nx.sum(Nx.dot(x, x), axes: [0])
      assert_equivalent(from(Nx.to_pointer(sum), sum), Nx.backend_copy(sum, Nx.BinaryBackend))
    end

    test "stays where it is while others use the tensor" do
      tensor = host(Nx.iota({300, 300}, type: :f32, backend: Nx.BinaryBackend))
      pointer = Nx.to_pointer(tensor, mode: :local)

      for _ <- 1..50 do
        tensor |> Nx.add(1) |> Nx.multiply(tensor) |> Mlx.eval()
        tensor |> Nx.transpose() |> Nx.to_binary()
      end

      :erlang.garbage_collect()
      assert Nx.to_pointer(tensor) == pointer
      assert Nx.to_binary(from(pointer, tensor)) == Nx.to_binary(tensor)
    end

    test "is of the first element of a view" do
      tensor = host(Nx.iota({10}, type: :s32, backend: Nx.BinaryBackend))
      Mlx.eval(tensor)
      whole = Nx.to_pointer(tensor)
      part = Nx.to_pointer(Nx.slice(tensor, [3], [4]))
      assert part.address == whole.address + 12
      assert part.data_size == 16
    end

    test "is copied, so that its owner may go" do
      tensor = host(sample(:s64, {600, 700}))
      pointer = Nx.to_pointer(tensor)
      copy = Nx.from_pointer({Backend, device: :cpu}, pointer, :s64, {600, 700})
      assert Nx.to_pointer(copy).address != Nx.to_pointer(tensor).address
      Nx.backend_deallocate(tensor)
      :erlang.garbage_collect()
      assert_equivalent(copy, sample(:s64, {600, 700}))
    end

    test "is of a binary's memory as well" do
      binary = :binary.copy(<<1, 2, 3>>, 1_500_000)
      held = host(Nx.from_binary(binary, :u8, backend: Nx.BinaryBackend))
      pointer = Nx.to_pointer(held)
      inside = %Nx.Pointer{kind: :local, address: pointer.address + 3 * 500_001}
      assert Nx.to_binary(from(inside, held, :u8, {6})) == <<1, 2, 3, 1, 2, 3>>
      big = %{inside | address: pointer.address + 1}
      copy = from(big, held, :u8, {4_499_999})
      assert Nx.to_binary(copy) == binary_part(binary, 1, 4_499_999)
    end

    test "is not there for types that lie in memory as others" do
      for type <- @narrow do
        error = assert_raise Mlx.Error, fn -> Nx.to_pointer(mlx(narrow(type))) end
        assert %{kind: :unsupported, op: "to_pointer"} = error
        assert error.message =~ "mode: :ipc"
      end
    end

    test "is not there without elements" do
      empty = Nx.pad(mlx(tensor([1], :f32)), 0, [{-1, 0, 0}])

      for mode <- [:local, :ipc] do
        error = assert_raise Mlx.Error, fn -> Nx.to_pointer(empty, mode: mode) end
        assert error.kind == :unsupported
      end
    end
  end

  describe ":ipc" do
    test "names shared memory with the values as Nx has them" do
      for expected <- Enum.map(@plain, &sample/1) ++ Enum.map(@narrow, &narrow/1) do
        tensor = mlx(expected)
        pointer = Nx.to_pointer(tensor, mode: :ipc)
        assert %Nx.Pointer{kind: :ipc, address: nil, handle: "/mlx-" <> _} = pointer
        assert pointer.data_size == ceil(bit_size(Nx.to_binary(expected)) / 8)
        copy = from(pointer, tensor)
        assert Nx.type(copy) == Nx.type(expected)
        assert Nx.to_binary(copy) == Nx.to_binary(expected)
      end
    end

    test "is the same again for the same permissions" do
      tensor = mlx(sample(:f32))
      pointer = Nx.to_pointer(tensor, mode: :ipc)
      assert Nx.to_pointer(tensor, mode: :ipc) == pointer
      assert Nx.to_pointer(tensor, mode: :ipc, permissions: 0o600).handle != pointer.handle
    end

    test "is gone with the tensor" do
      tensor = mlx(sample(:f32))
      pointer = Nx.to_pointer(tensor, mode: :ipc)
      assert_equivalent(from(pointer, tensor), sample(:f32))
      Nx.backend_deallocate(tensor)
      Mlx.synchronize()
      error = assert_raise Mlx.Error, fn -> from(pointer, tensor) end
      assert %{kind: :io} = error
      assert error.message =~ pointer.handle
    end

    if :os.type() == {:unix, :linux} do
      test "may be opened by whom the permissions name" do
        tensor = mlx(sample(:f32))

        for {opts, mode} <- [{[], 0o400}, {[permissions: 0o600], 0o600}] do
          pointer = Nx.to_pointer(tensor, [mode: :ipc] ++ opts)
          stat = File.stat!("/dev/shm" <> pointer.handle)
          assert Bitwise.band(stat.mode, 0o777) == mode
          assert stat.size == 60
        end

        assert Nx.backend_deallocate(tensor) == :ok
      end

      test "may be made by others, and be larger" do
        name = "mlx-test:#{System.pid()}:%s%n"
        path = Path.join("/dev/shm", name)
        File.write!(path, <<1, 2, 3, 4, 5>>)
        on_exit(fn -> File.rm(path) end)

        for handle <- [name, "/" <> name] do
          pointer = %Nx.Pointer{kind: :ipc, handle: handle}

          assert Nx.to_binary(Nx.from_pointer(Mlx.Backend, pointer, :u8, {5})) ==
                   <<1, 2, 3, 4, 5>>

          assert Nx.to_binary(Nx.from_pointer(Mlx.Backend, pointer, :u8, {2})) == <<1, 2>>

          error =
            assert_raise Mlx.Error, fn -> Nx.from_pointer(Mlx.Backend, pointer, :u16, {3}) end

          assert %{kind: :shape} = error
          assert error.message =~ "5 bytes, 6 are needed"
        end
      end
    end

    test "of shared memory that is not there raises" do
      for handle <- ["/mlx-none", "mlx-none", "/mlx-%s%n%x", "/a\0b", "", "/", "/..", "/a/b"] do
        pointer = %Nx.Pointer{kind: :ipc, handle: handle, data_size: 4}
        error = assert_raise Mlx.Error, fn -> Nx.from_pointer(Mlx.Backend, pointer, :f32, {}) end
        assert error.kind == :io
        assert error.message =~ "shared memory"
      end
    end
  end

  describe "from_pointer" do
    test "gives names" do
      tensor = host(sample(:f32, {2, 3}))
      pointer = Nx.to_pointer(tensor)
      named = from(pointer, tensor, :f32, {2, 3}, names: [:x, nil])
      assert named.names == [:x, nil]
      assert_equivalent(named, sample(:f32, {2, 3}, names: [:x, nil]))
    end

    test "makes another type of the same bytes" do
      tensor = host(tensor([1.5, -2.0], :f32))
      pointer = Nx.to_pointer(tensor)
      bits = from(pointer, tensor, :u32, {2})
      assert_equivalent(bits, Nx.bitcast(tensor([1.5, -2.0], :f32), :u32))
      halves = from(pointer, tensor, :u4, {16})
      assert Nx.to_binary(halves) == Nx.to_binary(tensor([1.5, -2.0], :f32))
    end

    test "without a size takes that of the tensor" do
      tensor = host(sample(:f32))
      pointer = %{Nx.to_pointer(tensor) | data_size: nil}
      assert_equivalent(from(pointer, tensor), sample(:f32))
    end

    test "of another size raises" do
      pointer = Nx.to_pointer(host(sample(:f32, {4})))

      for {type, shape} <- [{:f32, {3}}, {:f32, {5}}, {:u8, {4}}, {:u4, {4}}] do
        error =
          assert_raise Mlx.Error, fn -> Nx.from_pointer(Mlx.Backend, pointer, type, shape) end

        assert %{kind: :shape, op: "from_pointer"} = error
        assert error.message =~ ":data_size is 16"
      end
    end

    test "of no address, a negative or a misaligned one raises" do
      for address <- [0, -8, 13, 2 ** 64, 2 ** 64 + 16, nil, 8.0] do
        pointer = %Nx.Pointer{kind: :local, address: address, data_size: 4}

        assert_raise ArgumentError, ~r/an address is a positive multiple/, fn ->
          Nx.from_pointer(Mlx.Backend, pointer, :f32, {1})
        end
      end
    end

    test "of memory that can't be read raises" do
      {huge, there} = {2 ** 40, Nx.to_pointer(host(sample(:f32))).address}

      for {address, size} <- [{8, 4}, {2 ** 63, 16}, {2 ** 64 - 8, 64}, {there, huge}] do
        pointer = %Nx.Pointer{kind: :local, address: address}
        shape = {div(size, 4), 4}

        error =
          assert_raise Mlx.Error, fn -> Nx.from_pointer(Mlx.Backend, pointer, :u8, shape) end

        assert error.kind == :io
        assert error.message =~ "can't read #{size} bytes"
      end
    end

    test "of what is no pointer raises" do
      no_handle = %Nx.Pointer{kind: :ipc, address: 16}

      for pointer <- [nil, 16, %{address: 16}, %Nx.Pointer{kind: :remote}, no_handle] do
        assert_raise ArgumentError, fn -> Nx.from_pointer(Mlx.Backend, pointer, :u8, {1}) end
      end
    end

    test "of an unsupported type or device raises" do
      pointer = Nx.to_pointer(host(sample(:f32, {4})))
      error = assert_raise Mlx.Error, fn -> Nx.from_pointer(Mlx.Backend, pointer, :c128, {1}) end
      assert error.kind == :type

      tpu = {Backend, device: :tpu}
      error = assert_raise Mlx.Error, fn -> Nx.from_pointer(tpu, pointer, :f32, {4}) end
      assert error.kind == :device

      assert_raise ArgumentError, fn ->
        Nx.from_pointer(Mlx.Backend, pointer, :f32, {4}, other: 1)
      end
    end
  end

  describe "to_pointer" do
    test "knows its options" do
      tensor = mlx(sample(:f32))

      for opts <- [[mode: :remote], [permissions: -1], [permissions: 0o10000], [other: 1]] do
        assert_raise ArgumentError, fn -> Nx.to_pointer(tensor, opts) end
      end
    end

    test "of a tensor that was deallocated or failed raises" do
      gone = mlx(sample(:f32))
      Nx.backend_deallocate(gone)
      out = %{gone | shape: {5}, data: nil}
      failed = Mlx.Dispatch.run(:add, out, [mlx(sample(:f32, {2})), mlx(sample(:f32, {3}))])

      for {tensor, message} <- [{gone, ~r/deallocated/}, {failed, ~r/add/}],
          mode <- [:local, :ipc] do
        assert_raise Mlx.Error, message, fn -> Nx.to_pointer(tensor, mode: mode) end
      end
    end

    test "of a vectorized tensor is of all its values" do
      tensor = Nx.vectorize(host(sample(:f32, {3, 5})), :rows)
      pointer = Nx.to_pointer(tensor)
      assert pointer.data_size == 60
      assert_equivalent(from(pointer, tensor, :f32, {3, 5}), sample(:f32, {3, 5}))
    end

    test "in a function that Nx.reduce/4 calls raises" do
      fold = fn x, _acc -> Nx.to_pointer(x) end
      error = assert_raise Mlx.Error, fn -> Nx.reduce(mlx(sample(:f32)), 0.0, fold) end
      assert error.kind == :unsupported
    end
  end
end

defmodule Mlx.PointerOfAnotherProcessTest do
  use ExUnit.Case, async: true
  import Mlx.Samples

  # Another VM, which does what it reads from its standard input.
  defp other_vm do
    code = """
    Enum.reduce(IO.stream(:stdio, :line), [], fn line, binding ->
      {value, binding} = Code.eval_string(line, binding)
      IO.puts("value " <> Base.encode64(:erlang.term_to_binary(value)))
      binding
    end)
    """

    {elixir, args} = Mlx.OwnVm.command(code)
    Port.open({:spawn_executable, elixir}, [:binary, :exit_status, {:line, 4096}, args: args])
  end

  defp eval(vm, code) do
    Port.command(vm, code <> "\n")
    value(vm)
  end

  defp value(vm) do
    receive do
      {^vm, {:data, {:eol, "value " <> value}}} -> :erlang.binary_to_term(Base.decode64!(value))
      {^vm, {:data, _}} -> value(vm)
      {^vm, {:exit_status, status}} -> flunk("the other VM ended with #{status}")
    after
      60_000 -> flunk("no answer")
    end
  end

  test "values go from one to the other and back" do
    vm = other_vm()
    expected = sample(:f32, {300, 400})
    tensor = Nx.backend_copy(expected, Mlx.Backend)
    pointer = Nx.to_pointer(tensor, mode: :ipc)

    there = "Nx.from_pointer(Mlx.Backend, #{inspect(pointer)}, :f32, {300, 400})"
    back = eval(vm, "y = Nx.multiply(#{there}, 2); Nx.to_pointer(y, mode: :ipc)")
    assert back.handle != pointer.handle
    doubled = Nx.from_pointer(Mlx.Backend, back, :f32, {300, 400})
    assert Nx.to_binary(doubled) == Nx.to_binary(Nx.multiply(expected, 2))
    assert Nx.to_binary(tensor) == Nx.to_binary(expected)

    # What a VM has shared goes when it ends, though its tensors were never collected.
    assert eval(vm, "is_struct(y, Nx.Tensor)")
    Port.command(vm, "System.halt(0)\n")
    assert_receive {^vm, {:exit_status, 0}}, 60_000

    assert_raise Mlx.Error, ~r/shared memory/, fn ->
      Nx.from_pointer(Mlx.Backend, back, :f32, {300, 400})
    end
  end
end
